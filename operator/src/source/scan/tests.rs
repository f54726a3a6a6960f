use std::{fs, os::unix::fs::PermissionsExt as _, time::Instant};

use planner::ObjectRef;

use super::{file::MAX_FILE_BYTES, *};

struct Dir {
    temp: tempfile::TempDir,
    scanner: Scanner,
}

const ROUTE: &str = "apiVersion: sluice.dev/v1alpha1\nkind: ApiRoute\nmetadata: {name: NAME, namespace: shop}\n\
    spec:\n  rules:\n  - backendRefs: [{address: \"127.0.0.1:9000\"}]\n";

fn route(name: &str) -> String {
    ROUTE.replace("NAME", name)
}

fn id(name: &str) -> ObjectRef {
    ObjectRef { kind: planner::Kind::ApiRoute, namespace: "shop".into(), name: name.into() }
}

impl Dir {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let scanner = Scanner::new(temp.path().to_owned(), Generations::new());
        Self { temp, scanner }
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.temp.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Scans at a time when every file has settled.
    fn scan(&mut self) -> Scanned {
        self.scanner.scan(&Busy::new(), SystemTime::now() + Duration::from_secs(1))
    }

    /// Each object as `name generation good|bad line`, each stray as its message.
    fn observed(&mut self) -> (Vec<String>, Vec<String>) {
        self.scan();
        let observed = self.scanner.observed();
        let objects = observed.objects.iter().map(|(id, object)| {
            let line = object.origin.as_ref().unwrap().line;
            let state = if object.current.is_ok() { "good" } else { "bad" };
            format!("{} {} {state} {line}", id.name, object.generation)
        });
        (objects.collect(), observed.document_problems.iter().map(ToString::to_string).collect())
    }

    #[track_caller]
    fn check(&mut self, objects: &[&str], document_problems: &[&str]) {
        let (got, got_strays) = self.observed();
        assert_eq!(got, objects);
        assert_eq!(got_strays.len(), document_problems.len(), "{got_strays:?}");
        for (got, expect) in got_strays.iter().zip(document_problems) {
            assert!(got.contains(expect), "{got} has not {expect}");
        }
    }
}

#[test]
fn each_document_stands_alone() {
    let mut dir = Dir::new();
    dir.write("a.yaml", format!("{}---\nkind: [\n---\n{}", route("a"), route("b")));
    dir.write("b/c.yml", format!("# a comment\n\n{}", route("c").replace("rules", "rulez")));
    dir.write("d.yaml", "kind: Pod\napiVersion: v1\nmetadata: {name: x}\n---\n- just a list\n---\nplain text\n");
    dir.write("ignored.txt", "x");
    dir.write(".hidden.yaml", route("hidden"));
    dir.write(".hidden/x.yaml", route("hidden"));
    let (objects, document_problems) = dir.observed();
    assert_eq!(objects, ["a 1 good 1", "b 1 good 10", "c 1 bad 3"]);
    assert_eq!(document_problems.len(), 4, "{document_problems:#?}");
    assert!(document_problems[0].starts_with("a.yaml:8: not YAML: "), "{document_problems:#?}");
    assert!(document_problems[1].starts_with("d.yaml:1: "), "{document_problems:#?}");
    assert!(document_problems[2].starts_with("d.yaml:5: "), "{document_problems:#?}");
    assert!(document_problems[3].starts_with("d.yaml:7: "), "{document_problems:#?}");
}

#[test]
fn generations_count_changes_of_content() {
    let mut dir = Dir::new();
    dir.write("a.yaml", format!("{}---\n{}", route("a"), route("b")));
    dir.check(&["a 1 good 1", "b 1 good 8"], &[]);
    // A comment changes no content, and moves what follows.
    dir.write("a.yaml", format!("# x\n{}---\n{}", route("a"), route("b").replace("9000", "9001")));
    dir.check(&["a 1 good 2", "b 2 good 9"], &[]);
    // Broken text is another content of the same object; so is the text put right.
    dir.write("a.yaml", format!("{}---\n{}", route("a"), route("b").replace("[{", "[{{")));
    dir.check(&["a 1 good 1", "b 3 bad 8"], &[]);
    dir.write("a.yaml", format!("{}---\n{}", route("a"), route("b")));
    dir.check(&["a 1 good 1", "b 4 good 8"], &[]);
    // A new process counts on.
    let generations = dir.scanner.generations.clone();
    dir.scanner = Scanner::new(dir.temp.path().to_owned(), generations);
    dir.check(&["a 1 good 1", "b 4 good 8"], &[]);
    fs::remove_file(dir.temp.path().join("a.yaml")).unwrap();
    dir.check(&[], &[]);
    dir.write("a.yaml", route("b"));
    dir.check(&["b 1 good 1"], &[]);
}

#[test]
fn lines_follow_documents_that_move() {
    let mut dir = Dir::new();
    dir.write("a.yaml", route("a"));
    dir.scan();
    dir.write("a.yaml", format!("\n\n---\n{}", route("a")));
    dir.scan();
    let origin = dir.scanner.observed().objects[&id("a")].origin.clone().unwrap();
    assert_eq!((origin.line, origin.line_of("spec.rules[0].backendRefs[0].address")), (4, 9));
}

#[test]
fn the_first_of_two_is_used() {
    let mut dir = Dir::new();
    dir.write("b.yaml", route("a").replace("9000", "9001"));
    dir.write("a.yaml", format!("\n{}", route("a")));
    dir.check(&["a 1 good 2"], &["b.yaml:3: metadata.name: ApiRoute shop/a is also at a.yaml:2"]);
    fs::remove_file(dir.temp.path().join("a.yaml")).unwrap();
    dir.check(&["a 2 good 1"], &[]);
}

#[test]
fn a_copy_that_is_added_changes_nothing() {
    let mut dir = Dir::new();
    let (old, new) = (route("a"), route("a").replace("9000", "9001"));
    dir.write("b.yaml", &old);
    dir.check(&["a 1 good 1"], &[]);
    dir.write("a.yaml", format!("\n{new}"));
    let told = ["a.yaml:4: metadata.name: ApiRoute shop/a is also at b.yaml:1"];
    dir.check(&["a 1 good 1"], &told);
    // Nor does a broken one, or one before it in the same file.
    dir.write("a.yaml", format!("\n{}", new.replace("[{", "[{{")));
    dir.check(&["a 1 good 1"], &["a.yaml:2: metadata.name: ApiRoute shop/a is also at b.yaml:1"]);
    dir.write("a.yaml", format!("\n{new}"));
    dir.write("b.yaml", format!("{new}---\n{old}"));
    dir.check(&["a 1 good 8"], &[told[0].split(" b.yaml").next().unwrap(), "b.yaml:3: metadata.name"]);
    // The one that is used is followed where it is edited, and where its file is renamed.
    dir.write("b.yaml", format!("{new}---\n{}", old.replace("9000", "9002")));
    dir.check(&["a 2 good 8"], &["a.yaml:4: ", "b.yaml:3: "]);
    fs::rename(dir.temp.path().join("b.yaml"), dir.temp.path().join("c.yaml")).unwrap();
    dir.check(&["a 2 good 8"], &["a.yaml:4: ", "c.yaml:3: "]);
    // A new operator knows it too.
    let generations = dir.scanner.generations.clone();
    dir.scanner = Scanner::new(dir.temp.path().to_owned(), generations);
    dir.check(&["a 2 good 8"], &["a.yaml:4: ", "c.yaml:3: "]);
}

#[test]
fn what_can_not_be_read_stays() {
    let mut dir = Dir::new();
    dir.write("a.yaml", route("a"));
    dir.write("sub/b.yaml", route("b"));
    dir.check(&["a 1 good 1", "b 1 good 1"], &[]);
    dir.write("a.yaml", b"kind: \xff\n");
    dir.check(&["a 1 good 1", "b 1 good 1"], &["a.yaml:1: is not UTF-8"]);
    dir.write("a.yaml", vec![b' '; MAX_FILE_BYTES as usize + 1]);
    dir.check(&["a 1 good 1", "b 1 good 1"], &["is larger than 16 MiB"]);
    dir.write("a.yaml", route("a"));
    dir.check(&["a 1 good 1", "b 1 good 1"], &[]);
    // As another user, or where root is bound by modes, a folder that can't be listed keeps what it held.
    let sub = dir.temp.path().join("sub");
    fs::set_permissions(&sub, fs::Permissions::from_mode(0o0)).unwrap();
    if fs::read_dir(&sub).is_err() {
        dir.check(&["a 1 good 1", "b 1 good 1"], &["sub:1: can't be read"]);
    }
    fs::set_permissions(&sub, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_vanished_directory_deletes_nothing() {
    let mut dir = Dir::new();
    dir.write("m/a.yaml", route("a"));
    dir.scanner = Scanner::new(dir.temp.path().join("m"), Generations::new());
    dir.check(&["a 1 good 1"], &[]);
    fs::rename(dir.temp.path().join("m"), dir.temp.path().join("n")).unwrap();
    assert!(!dir.scan().readable);
    dir.check(&["a 1 good 1"], &["the manifest directory can't be read"]);
    fs::rename(dir.temp.path().join("n"), dir.temp.path().join("m")).unwrap();
    dir.check(&["a 1 good 1"], &[]);
}

#[test]
fn a_file_being_written_is_waited_for() {
    let mut dir = Dir::new();
    dir.write("a.yaml", route("a"));
    dir.scan();
    let path = dir.temp.path().join("a.yaml");
    dir.write("a.yaml", "kind: Ap");
    let written = fs::metadata(&path).unwrap().modified().unwrap();
    let scanned = dir.scanner.scan(&Busy::new(), written + Duration::from_millis(5));
    assert_eq!(scanned, Scanned { changed: false, again_in: Some(Duration::from_millis(10)), readable: true });
    // Old enough, but its writer has not closed it.
    let busy = Busy::from([(path, written)]);
    let scanned = dir.scanner.scan(&busy, written + Duration::from_millis(100));
    assert_eq!(scanned.again_in, Some(Duration::from_millis(900)));
    assert_eq!(dir.scanner.observed().objects.len(), 1);
    // A writer that never closes is not waited for.
    assert!(dir.scanner.scan(&busy, written + Duration::from_millis(1000)).changed);
}

#[test]
fn links_are_followed_but_not_in_circles() {
    let mut dir = Dir::new();
    dir.write("..data/a.yaml", route("a"));
    dir.write("sub/b.yaml", route("b"));
    std::os::unix::fs::symlink("..data/a.yaml", dir.temp.path().join("a.yaml")).unwrap();
    std::os::unix::fs::symlink("..", dir.temp.path().join("sub/up")).unwrap();
    std::os::unix::fs::symlink("nowhere", dir.temp.path().join("dangling.yaml")).unwrap();
    dir.check(&["a 1 good 1", "b 1 good 1"], &["a symbolic link to a folder above it"]);
    rustix::fs::mknodat(
        rustix::fs::CWD,
        dir.temp.path().join("pipe.yaml"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    dir.check(&["a 1 good 1", "b 1 good 1"], &["a symbolic link to a folder above it"]);
}

#[test]
fn one_change_among_thousands_is_quick() {
    let mut dir = Dir::new();
    let routes = |port: &str| -> String {
        (0..2000).map(|i| format!("{}---\n", route(&format!("r{i}")))).collect::<String>()
            + &route("last").replace("9000", port)
    };
    dir.write("many.yaml", routes("9000"));
    dir.scan();
    assert_eq!(dir.scanner.observed().objects.len(), 2001);
    dir.write("many.yaml", routes("9001"));
    let start = Instant::now();
    assert!(dir.scan().changed);
    let observed = dir.scanner.observed();
    assert_eq!(observed.objects[&id("last")].generation, 2);
    assert_eq!(observed.objects[&id("r7")].generation, 1);
    // Ten times what it takes without optimisation; admitting 2000 objects again would take seconds.
    assert!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    #[test]
    fn arbitrary_files_never_panic(
        bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300),
        cut in 0..200usize,
        flip in 0..200usize,
        byte in proptest::prelude::any::<u8>(),
    ) {
        let mut dir = Dir::new();
        let mut text = format!("{}---\n{}", route("a"), route("b")).into_bytes();
        let at = flip % text.len();
        text[at] = byte;
        text.truncate(text.len() - cut.min(text.len()));
        dir.write("a.yaml", &bytes);
        dir.write("b.yaml", &text);
        dir.observed();
        dir.write("b.yaml", [text, bytes].concat());
        dir.observed();
    }
}

/// Each object that is held whole, and each of which only the name is.
fn held(dir: &mut Dir) -> (Vec<String>, Vec<String>) {
    // What there is room for again is read by the next scan.
    while dir.scan().again_in.is_some() {}
    let observed = dir.scanner.observed();
    let name = |id: &ObjectRef| format!("{}/{}", id.namespace, id.name);
    let whole = observed.objects.iter().filter(|(_, object)| object.current.is_ok()).map(|(id, _)| name(id));
    (whole.collect(), observed.left_out.iter().map(name).collect())
}

#[test]
fn no_namespace_takes_the_room_of_others() {
    let mut dir = Dir::new();
    dir.scanner = Scanner::within(1400 << 10, dir.temp.path().to_owned(), Generations::new());
    // Of small ones the youngest are not held at all.
    let hosts: Vec<String> = (0..16).map(|h| format!("{h}.{}.{0}.{0}.example", "h".repeat(63))).collect();
    let spec = format!("spec:\n  hostnames: [{}]", hosts.join(", "));
    let of = |namespace: &str, name: &str| route(name).replace("shop", namespace).replace("spec:", &spec);
    dir.write("shop.yaml", of("shop", "x"));
    assert_eq!(held(&mut dir).0, ["shop/x"]);
    // The files of the other come first, all at once and in several.
    let names: Vec<String> = (0..60).map(|i| format!("r{i:02}")).collect();
    let crowd = |names: &[String]| names.iter().map(|name| format!("---\n{}", of("crowd", name))).collect::<String>();
    dir.write("a.yaml", crowd(&names[..30]));
    dir.write("b.yaml", crowd(&names[30..]));
    let (whole, left_out) = held(&mut dir);
    assert!(whole.contains(&"shop/x".to_owned()) && whole.len() > 2, "{whole:?}");
    assert!(left_out.len() > 10 && left_out.iter().all(|name| name.starts_with("crowd/")), "{left_out:?}");
    // Its oldest are those that stay.
    assert!(whole.contains(&"crowd/r00".to_owned()) && !whole.contains(&"crowd/r59".to_owned()));
    let observed = dir.scanner.observed();
    let why = &observed.objects[&ObjectRef { namespace: "crowd".into(), ..id("r59") }].current.as_ref().unwrap_err()[0];
    assert!(why.message.contains("only the name of this one is held"), "{why:?}");
    // What is left when it takes most away is whole again, though its file did not change.
    fs::remove_file(dir.temp.path().join("a.yaml")).unwrap();
    dir.write("b.yaml", crowd(&names[50..]));
    let (whole, left_out) = held(&mut dir);
    assert_eq!((whole.len(), left_out.len()), (11, 0), "{left_out:?}");
}

#[test]
fn a_document_that_no_api_server_would_take() {
    let mut dir = Dir::new();
    dir.write("a.yaml", format!("{}  # {}\n", route("a"), "x".repeat(4 << 20)));
    let (objects, document_problems) = dir.observed();
    assert_eq!((objects.as_slice(), document_problems.len()), (["a 1 bad 1".to_owned()].as_slice(), 0));
}
