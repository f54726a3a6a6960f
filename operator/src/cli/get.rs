//! `get`: what came of the objects, from the files that the running operator writes.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::ValueEnum;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceColumnDefinition, CustomResourceDefinition,
};
use serde_json::{Value, json};

use super::{
    Failure,
    columns::{cell, evaluate, table},
};
use crate::state::{self, default_dir};

/// Shows what came of objects, in the columns of `kubectl get`
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// gatewayfleets (gwf), apiroutes (ar), ratepolicies (rp), accesspolicies (ap), consumers (cons) or all; several with commas between.
    kind: String,
    /// Only the object of this name.
    name: Option<String>,
    /// Only objects of this namespace.
    #[arg(long, short)]
    namespace: Option<String>,
    /// The operator's folder; default: that of --manifests.
    #[arg(long, value_name = "DIR", required_unless_present = "manifests")]
    state_dir: Option<PathBuf>,
    /// The manifests that an operator runs on with the default state folder.
    #[arg(long, value_name = "DIR")]
    manifests: Option<PathBuf>,
    /// Instead of the table: with namespaces and messages, or the objects as they are.
    #[arg(long, short, value_enum)]
    output: Option<Output>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Wide,
    Json,
    Yaml,
}

pub(super) fn run(args: &Args) -> Result<ExitCode, Failure> {
    let folder = match (&args.state_dir, &args.manifests) {
        (Some(folder), _) => folder.clone(),
        (None, Some(manifests)) => default_dir(manifests)?,
        (None, None) => return Err("give --state-dir or --manifests".into()),
    };
    if !folder.join("status").is_dir() {
        let hint = "is `sluice-operator standalone` running, with the same --manifests or --state-dir?";
        return Err(format!("no status in {}: {hint}", folder.display()).into());
    }
    if !state::is_held(&folder) {
        eprintln!("no operator runs on {}: this is how things stood when the last one ended", folder.display());
    }
    let (mut objects, mut tables) = (vec![], vec![]);
    for crd in kinds(&args.kind)? {
        let found = read(&folder.join("status").join(&crd.spec.names.plural), args)?;
        tables.extend((!found.is_empty()).then(|| rows(&crd, &found, args.output == Some(Output::Wide))));
        objects.extend(found);
    }
    if let (Some(name), true) = (&args.name, objects.is_empty()) {
        return Err(format!("no {} named {name:?} in {}", args.kind, folder.display()).into());
    }
    let text = match args.output {
        None | Some(Output::Wide) if objects.is_empty() => {
            eprintln!("No resources found");
            String::new()
        }
        None | Some(Output::Wide) => tables.iter().map(|rows| table(rows)).collect::<Vec<_>>().join("\n"),
        Some(Output::Json) => format!("{:#}\n", whole(args, objects)),
        Some(Output::Yaml) => serde_yaml::to_string(&whole(args, objects))?,
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// The definitions of the kinds that a word names, in singular, plural or short.
fn kinds(words: &str) -> Result<Vec<CustomResourceDefinition>, Failure> {
    let mut kinds = vec![];
    for word in words.to_lowercase().split(',') {
        let names = |crd: &CustomResourceDefinition| {
            let names = &crd.spec.names;
            let group = format!(".{}", crd.spec.group);
            let word = word.strip_suffix(&group).unwrap_or(word);
            let short = names.short_names.iter().flatten().any(|short| short == word);
            let category = names.categories.iter().flatten().any(|category| category == word);
            word == "all" || category || short || word == names.plural || names.singular.as_deref() == Some(word)
        };
        let found: Vec<_> = crds::definitions().into_iter().filter(names).collect();
        if found.is_empty() {
            let known: Vec<_> = crds::definitions().iter().map(|crd| crd.spec.names.plural.clone()).collect();
            return Err(format!("unknown kind {word:?}: one of {}, all", known.join(", ")).into());
        }
        kinds.extend(found);
    }
    Ok(kinds)
}

/// The status files of one kind, by namespace and name.
fn read(folder: &Path, args: &Args) -> Result<Vec<Value>, Failure> {
    let text = |object: &Value, key: &str| object["metadata"][key].as_str().unwrap_or_default().to_owned();
    let mut objects = vec![];
    for entry in walkdir::WalkDir::new(folder).into_iter().flatten() {
        let path = entry.path();
        if path.extension().is_none_or(|e| e != "json") {
            continue;
        }
        // Gone since it was listed: the object was deleted.
        let Ok(bytes) = fs::read(path) else { continue };
        let object: Value = serde_json::from_slice(&bytes).map_err(|error| format!("{}: {error}", path.display()))?;
        let wanted = |filter: &Option<String>, key| filter.as_ref().is_none_or(|wanted| text(&object, key) == *wanted);
        if wanted(&args.name, "name") && wanted(&args.namespace, "namespace") {
            objects.push(object);
        }
    }
    objects.sort_by_key(|object| (text(object, "namespace"), text(object, "name")));
    Ok(objects)
}

/// Heads and cells. The namespace is shown where it tells objects apart.
fn rows(crd: &CustomResourceDefinition, objects: &[Value], wide: bool) -> Vec<Vec<String>> {
    let now = jiff::Timestamp::now();
    let columns = crd.spec.versions.first().and_then(|version| version.additional_printer_columns.clone());
    let mut columns = columns.unwrap_or_default();
    // As kubectl has it: with `-o wide` alone.
    columns.retain(|column| column.priority.unwrap_or_default() == 0);
    let namespace = |object: &Value| object["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
    let namespaces = wide || objects.iter().any(|object| namespace(object) != namespace(&objects[0]));
    let mut heads = vec!["NAME".to_owned()];
    heads.extend(columns.iter().map(|column| column.name.to_uppercase()));
    if wide {
        heads.push("MESSAGE".into());
    }
    let cells = |object: &Value| {
        let mut cells = vec![object["metadata"]["name"].as_str().unwrap_or_default().to_owned()];
        let value = |c: &CustomResourceColumnDefinition| cell(evaluate(object, &c.json_path), &c.type_, now);
        cells.extend(columns.iter().map(value));
        if wide {
            cells.push(message(object));
        }
        cells
    };
    let mut rows = vec![heads];
    rows.extend(objects.iter().map(cells));
    if namespaces {
        rows[0].insert(0, "NAMESPACE".into());
        rows[1..].iter_mut().zip(objects).for_each(|(row, object)| row.insert(0, namespace(object)));
    }
    rows
}

/// The message of the first condition that is not as it should be.
fn message(object: &Value) -> String {
    let conditions = object["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let bad = conditions.iter().find(|c| (c["status"] == "True") == (c["type"] == "Conflicted"));
    bad.and_then(|c| c["message"].as_str()).unwrap_or_default().to_owned()
}

/// The answer as one object if a name was given, as a list otherwise.
fn whole(args: &Args, mut objects: Vec<Value>) -> Value {
    match (&args.name, objects.len()) {
        (Some(_), 1) => objects.remove(0),
        _ => json!({"apiVersion": "v1", "kind": "List", "items": objects}),
    }
}
