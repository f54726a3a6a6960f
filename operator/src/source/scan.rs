//! Scans a manifest directory: what is there now, file by file, reading only what changed.

mod file;

use std::{
    collections::{BTreeMap, HashMap},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use planner::{ObjectRef, Origin, Problem, Severity};
use snapshot::Hash;
use walkdir::WalkDir;

use self::file::{Reading, SETTLE_TIME, Stamp, read, unsettled};
use super::{
    Generations, Observed, SourceObject,
    budget::{self, Budget, Given, Weight},
    document::{self, Content, Document},
    reason, yaml,
};

/// Most documents of a directory that are held whole, shared between namespaces, and most files.
pub const MAX_DOCUMENTS: usize = 20_000;
/// Deepest folder: also ends symbolic links that go round in circles.
const MAX_DEPTH: usize = 32;

/// The content of the directory when last scanned.
#[derive(Debug)]
pub struct Scanner {
    root: PathBuf,
    /// Bounds what is held of documents, each of which is known by its file and number.
    budget: Budget<(PathBuf, usize)>,
    /// When each object was first seen, counted; and the next number.
    ages: BTreeMap<ObjectRef, i64>,
    age: i64,
    /// Something was given up since the last scan.
    gave_up: bool,
    /// The documents that were to be read again after the last scan.
    returning: Vec<(PathBuf, usize)>,
    files: BTreeMap<PathBuf, File>,
    /// Problems of reading itself, as of the last scan.
    unreadable: Vec<Problem>,
    generations: Generations,
    /// Which document each object was taken from last.
    used: BTreeMap<ObjectRef, Location>,
}

/// The location of a document: its file, and its index there.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Location {
    file: Arc<str>,
    number: usize,
}

/// The outcome of a scan.
#[derive(Debug, PartialEq, Eq)]
pub struct Scanned {
    /// Something differs from the last scan.
    pub changed: bool,
    /// A file is being written: scan again after this time.
    pub again_in: Option<Duration>,
    /// The directory itself could be read.
    pub readable: bool,
}

#[derive(Debug)]
struct File {
    stamp: Stamp,
    documents: Vec<Document>,
}

/// Files that a process is known to be writing, and since when it was last seen to.
pub type Busy = HashMap<PathBuf, SystemTime>;

impl Scanner {
    /// Knows nothing of the directory yet; counts generations on from `generations`.
    pub fn new(root: PathBuf, generations: Generations) -> Self {
        Self::within(budget::MAX_HELD_BYTES, root, generations)
    }

    /// A scanner that holds no more than so much.
    fn within(most: u64, root: PathBuf, generations: Generations) -> Self {
        Self {
            root,
            budget: Budget::new(most),
            ages: BTreeMap::new(),
            age: 0,
            gave_up: false,
            returning: vec![],
            files: BTreeMap::new(),
            unreadable: vec![],
            generations,
            used: BTreeMap::new(),
        }
    }

    /// Looks at everything and reads what changed. When the directory itself can't be read, what was there stays.
    pub fn scan(&mut self, busy: &Busy, now: SystemTime) -> Scanned {
        let mut seen = BTreeMap::new();
        let mut unreadable = vec![];
        let mut again_in: Option<Duration> = None;
        let mut wait = |time: Duration| again_in = Some(again_in.map_or(time, |t| t.min(time)));
        let mut changed = false;
        let walk = WalkDir::new(&self.root).follow_links(true).max_depth(MAX_DEPTH).sort_by_file_name();
        for entry in walk.into_iter().filter_entry(|e| e.depth() == 0 || !is_hidden(e.path())) {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) if error.depth() == 0 => return self.vanished(&error),
                Err(error) => {
                    self.keep_below(error.path(), &mut seen);
                    unreadable.extend(self.walk_problem(&error));
                    continue;
                }
            };
            if !is_manifest(entry.path()) {
                continue;
            }
            let meta = match entry.metadata() {
                Ok(meta) if meta.is_file() => meta,
                Ok(_) => continue,
                // Deleted since it was listed: another event comes, or the poll.
                Err(_) => continue,
            };
            if seen.len() == MAX_DOCUMENTS {
                let message = format!("more than {MAX_DOCUMENTS} files: this one and those behind it are not read");
                unreadable.push(self.file_problem(entry.path(), message));
                break;
            }
            let path = entry.into_path();
            let former = self.files.remove(&path);
            let stamp = Stamp::of(&meta);
            if former.as_ref().is_some_and(|f| f.stamp == stamp) {
                seen.extend(former.map(|f| (path, f)));
                continue;
            }
            if let Some(time) = unsettled(&meta, busy.get(&path), now) {
                wait(time);
                seen.extend(former.map(|f| (path, f)));
                continue;
            }
            match read(&path) {
                Reading::Text(stamp, text) => {
                    let documents = self.documents(&path, &text, former.as_ref(), &mut seen);
                    changed |= former.is_none_or(|f| differs(&f.documents, &documents));
                    seen.insert(path, File { stamp, documents });
                }
                Reading::Torn => {
                    wait(SETTLE_TIME);
                    seen.extend(former.map(|f| (path, f)));
                }
                Reading::Failed(message) => {
                    unreadable.push(self.file_problem(&path, message));
                    seen.extend(former.map(|f| (path, f)));
                }
            }
        }
        // What remains in `files` was not seen: it is gone.
        changed |= !self.files.is_empty() || unreadable != self.unreadable || std::mem::take(&mut self.gave_up);
        for (path, file) in std::mem::take(&mut self.files) {
            self.release(&path, &file);
        }
        (self.files, self.unreadable) = (seen, unreadable);
        if self.read_again() {
            again_in = Some(Duration::ZERO);
        }
        Scanned { changed, again_in, readable: true }
    }

    /// Everything there is, each object once.
    pub fn observed(&mut self) -> Observed {
        let mut observed = Observed { document_problems: self.unreadable.clone(), ..Observed::default() };
        let chosen = self.choose();
        let mut used = BTreeMap::new();
        for (number, document) in self.documents_in_force() {
            let (id, current, raw, hash, origin) = match &document.content {
                Content::Problems(problems) => {
                    observed.document_problems.extend_from_slice(problems);
                    continue;
                }
                Content::Object { id, current, raw, hash, origin, left_out } => {
                    if *left_out
                        && chosen
                            .get(id)
                            .is_none_or(|(location, _)| location.number == number && location.file == origin.file)
                    {
                        observed.left_out.insert(id.clone());
                    }
                    (id, current, raw, hash, origin)
                }
            };
            let location = Location { file: Arc::clone(&origin.file), number };
            if let Some((first, at)) = chosen.get(id).filter(|(first, _)| *first != location) {
                // Not a problem of the object: the one that is used is none the worse.
                observed.document_problems.push(Problem {
                    object: None,
                    origin: Some(origin.clone()),
                    field: "metadata.name".into(),
                    reason: reason::DUPLICATE,
                    message: format!(
                        "{id} is also at {}:{at}, which is the one used: remove one, or rename it",
                        first.file
                    ),
                    severity: Severity::Rejected,
                });
                continue;
            }
            let generation = match self.generations.get(id) {
                Some((generation, content)) if content == hash => *generation,
                Some((generation, _)) => generation + 1,
                None => 1,
            };
            let object = SourceObject {
                current: current.clone(),
                raw: raw.clone(),
                generation,
                content: *hash,
                origin: Some(origin.clone()),
                creation: None,
            };
            observed.objects.insert(id.clone(), object);
            used.insert(id.clone(), location);
        }
        self.ages.retain(|id, _| observed.objects.contains_key(id));
        self.generations = observed.objects.iter().map(|(id, o)| (id.clone(), (o.generation, o.content))).collect();
        self.used = used;
        observed
    }

    /// All documents, each with its number within its file.
    fn documents_in_force(&self) -> impl Iterator<Item = (usize, &Document)> {
        self.files.values().flat_map(|f| f.documents.iter().enumerate())
    }

    /// For each object that stands in several places, the one that is used, and its line: the one that was used before,
    /// so that a copy that is added changes nothing; else the first.
    fn choose(&self) -> BTreeMap<ObjectRef, (Location, u32)> {
        let mut chosen: BTreeMap<ObjectRef, (u32, (Location, u32))> = BTreeMap::new();
        for (number, document) in self.documents_in_force() {
            let Content::Object { id, hash, origin, .. } = &document.content else { continue };
            let unchanged = self.generations.get(id).is_some_and(|(_, content)| content == hash);
            let rank = match self.used.get(id) {
                Some(before) if before.file == origin.file && unchanged => 4,
                Some(before) if before.file == origin.file && before.number == number => 3,
                Some(before) if before.file == origin.file => 2,
                // Its file was renamed, or the operator started anew.
                _ if unchanged => 1,
                _ => 0,
            };
            if chosen.get(id).is_none_or(|(best, _)| rank > *best) {
                let location = Location { file: Arc::clone(&origin.file), number };
                chosen.insert(id.clone(), (rank, (location, origin.line)));
            }
        }
        chosen.into_iter().map(|(id, (_, location))| (id, location)).collect()
    }

    /// Reads a file's documents, taking over those whose text was there before. Each is counted before the next one is read:
    /// what there is too much of is given up, wherever it stands.
    fn documents(
        &mut self,
        path: &Path,
        text: &str,
        former: Option<&File>,
        seen: &mut BTreeMap<PathBuf, File>,
    ) -> Vec<Document> {
        let file: Arc<str> = self.relative(path);
        let mut known: HashMap<Hash, &Document> = HashMap::new();
        known.extend(former.iter().flat_map(|f| &f.documents).filter(|d| !d.is_left_out()).map(|d| (d.text, d)));
        if let Some(former) = former {
            self.release(path, former);
        }
        let mut documents: Vec<Document> = vec![];
        for (number, chunk) in yaml::documents(text).iter().take(MAX_DOCUMENTS + 1).enumerate() {
            let document = match known.get(&Hash::of(chunk.text.as_bytes())) {
                Some(document) => document.moved_to(chunk.line),
                None => document::read(&file, *chunk),
            };
            let counted = document.id().cloned().map(|id| (id, document.weight));
            documents.push(document);
            let Some((id, weight)) = counted else { continue };
            self.age += 1;
            let age = *self.ages.entry(id.clone()).or_insert(self.age);
            let least = (self.budget.most() / MAX_DOCUMENTS as u64).saturating_sub(budget::name(id.kind));
            let weight = Weight { now: weight.max(least), before: 0 };
            for given in self.budget.hold(&(path.to_owned(), number), &id, age, weight) {
                let (Given::Name(of) | Given::Nothing(of)) = &given;
                let documents = match of.0 == path {
                    true => Some(&mut documents),
                    false => seen.get_mut(&of.0).or_else(|| self.files.get_mut(&of.0)).map(|file| &mut file.documents),
                };
                let Some(document) = documents.and_then(|documents| documents.get_mut(of.1)) else { continue };
                self.gave_up = true;
                let message = document.id().map(|id| budget::message(&self.budget, id)).unwrap_or_default();
                match given {
                    Given::Name(_) => document.leave_out(message),
                    Given::Nothing(_) => document.forget(),
                }
            }
        }
        documents
    }

    /// Counts the documents of a file no more.
    fn release(&mut self, path: &Path, file: &File) {
        for number in 0..file.documents.len() {
            self.budget.remove(&(path.to_owned(), number));
        }
    }

    /// Has the files read anew of which there is room for more; whether there are others than before: one that can't be
    /// read is not tried without end.
    fn read_again(&mut self) -> bool {
        let returns = self.budget.returns(MAX_DOCUMENTS);
        for (path, _) in &returns {
            if let Some(file) = self.files.get_mut(path) {
                file.stamp = Stamp::default();
            }
        }
        let is_news = !returns.is_empty() && returns != self.returning;
        self.returning = returns;
        is_news
    }

    fn vanished(&mut self, error: &walkdir::Error) -> Scanned {
        let why = error.io_error().map_or_else(|| error.to_string(), io::Error::to_string);
        let message = format!("the manifest directory can't be read ({why}): what it held last stays in force");
        let problem = vec![self.file_problem(&self.root, message)];
        let changed = self.unreadable != problem;
        self.unreadable = problem;
        Scanned { changed, again_in: None, readable: false }
    }

    /// Keeps the files below a folder that can't be listed.
    fn keep_below(&mut self, path: Option<&Path>, seen: &mut BTreeMap<PathBuf, File>) {
        let Some(path) = path else { return };
        let below: Vec<PathBuf> = self.files.keys().filter(|p| p.starts_with(path)).cloned().collect();
        seen.extend(below.into_iter().filter_map(|p| self.files.remove_entry(&p)));
    }

    fn walk_problem(&self, error: &walkdir::Error) -> Option<Problem> {
        let message = match error.io_error() {
            // Deleted since it was listed, or a link to nowhere.
            Some(e) if e.kind() == io::ErrorKind::NotFound => return None,
            Some(e) => format!("can't be read: {e}; what it held last stays in force"),
            None => "a symbolic link to a folder above it: remove it".into(),
        };
        Some(self.file_problem(error.path().unwrap_or(&self.root), message))
    }

    fn file_problem(&self, path: &Path, message: String) -> Problem {
        Problem {
            object: None,
            origin: Some(Origin { file: self.relative(path), line: 1, lines: Arc::default() }),
            field: String::new(),
            reason: reason::UNREADABLE,
            message,
            severity: Severity::Rejected,
        }
    }

    /// The path as messages show it: below the directory; the directory itself as it was given.
    fn relative(&self, path: &Path) -> Arc<str> {
        let below = path.strip_prefix(&self.root).ok().filter(|p| !p.as_os_str().is_empty());
        below.unwrap_or(path).to_string_lossy().into()
    }
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

fn is_manifest(path: &Path) -> bool {
    path.extension().is_some_and(|e| ["yaml", "yml", "json"].iter().any(|known| e == *known))
}

fn differs(before: &[Document], after: &[Document]) -> bool {
    let same =
        |(a, b): (&Document, &Document)| a.text == b.text && a.line == b.line && a.is_left_out() == b.is_left_out();
    before.len() != after.len() || !before.iter().zip(after).all(same)
}

#[cfg(test)]
mod tests;
