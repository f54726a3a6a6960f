//! Scans a manifest directory: what is there now, file by file, reading only what changed.

use std::{
    collections::{BTreeMap, HashMap},
    fs, io,
    io::Read as _,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use planner::{ObjectRef, Origin, Problem, Severity};
use snapshot::Hash;
use walkdir::WalkDir;

use super::{
    Generations, Observed, SourceObject,
    document::{self, Content, Document},
    reason, yaml,
};

/// Largest manifest file, in bytes.
pub const MAX_FILE: u64 = 16 << 20;
/// Most documents of a directory, and most files.
pub const MAX_DOCUMENTS: usize = 20_000;
/// Deepest folder: also ends symbolic links that go round in circles.
const MAX_DEPTH: usize = 32;
/// A file changed more recently than this may still be being written. Also covers the granularity of file times (at most
/// 10 ms): a file read at some time and changed within the same tick would look unchanged.
const SETTLES: Duration = Duration::from_millis(15);

/// What the directory held when last scanned.
#[derive(Debug, Default)]
pub struct Scanner {
    root: PathBuf,
    files: BTreeMap<PathBuf, File>,
    /// Problems of reading itself, as of the last scan.
    unreadable: Vec<Problem>,
    generations: Generations,
    /// Which document each object was taken from last.
    used: BTreeMap<ObjectRef, Place>,
}

/// Where a document stands: its file, and the how manieth of it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    file: Arc<str>,
    number: usize,
}

/// What a scan found.
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

/// While it stays, so does the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(meta: &fs::Metadata) -> Self {
        Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }
}

/// What reading one file gave.
enum Reading {
    Text(Stamp, String),
    /// Changed while it was read.
    Torn,
    Failed(String),
}

/// Files that a process is known to be writing, and since when it was last seen to.
pub type Busy = HashMap<PathBuf, SystemTime>;

/// A writer that is silent for this long is not waited for: it keeps the file open, as a log's does.
const WRITER_PAUSE: Duration = Duration::from_secs(1);

impl Scanner {
    /// Knows nothing of the directory yet; counts generations on from `generations`.
    pub fn new(root: PathBuf, generations: Generations) -> Self {
        Self { root, generations, ..Self::default() }
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
                    let documents = self.documents(&path, &text, former.as_ref());
                    changed |= former.is_none_or(|f| differs(&f.documents, &documents));
                    seen.insert(path, File { stamp, documents });
                }
                Reading::Torn => {
                    wait(SETTLES);
                    seen.extend(former.map(|f| (path, f)));
                }
                Reading::Failed(message) => {
                    unreadable.push(self.file_problem(&path, message));
                    seen.extend(former.map(|f| (path, f)));
                }
            }
        }
        // What remains in `files` was not seen: it is gone.
        changed |= !self.files.is_empty() || unreadable != self.unreadable;
        (self.files, self.unreadable) = (seen, unreadable);
        Scanned { changed, again_in, readable: true }
    }

    /// Everything there is, each object once.
    pub fn observed(&mut self) -> Observed {
        let mut observed = Observed { strays: self.unreadable.clone(), ..Observed::default() };
        let count = self.files.values().map(|f| f.documents.len()).sum::<usize>();
        let chosen = self.choose();
        let mut used = BTreeMap::new();
        for (number, document) in self.documents_in_force() {
            let (id, current, raw, hash, origin) = match &document.content {
                Content::Stray(problems) => {
                    observed.strays.extend_from_slice(problems);
                    continue;
                }
                Content::Object { id, current, raw, hash, origin } => (id, current, raw, hash, origin),
            };
            let place = Place { file: Arc::clone(&origin.file), number };
            if let Some((first, at)) = chosen.get(id).filter(|(first, _)| *first != place) {
                // Not a problem of the object: the one that is used is none the worse.
                observed.strays.push(Problem {
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
                birth: None,
            };
            observed.objects.insert(id.clone(), object);
            used.insert(id.clone(), place);
        }
        if count > MAX_DOCUMENTS {
            let message = format!("{count} documents, and only the first {MAX_DOCUMENTS} are used");
            observed.strays.push(self.file_problem(&self.root, message));
        }
        self.generations = observed.objects.iter().map(|(id, o)| (id.clone(), (o.generation, o.content))).collect();
        self.used = used;
        observed
    }

    /// The documents that count, each with its number within its file.
    fn documents_in_force(&self) -> impl Iterator<Item = (usize, &Document)> {
        self.files.values().flat_map(|f| f.documents.iter().enumerate()).take(MAX_DOCUMENTS)
    }

    /// For each object that stands in several places, the one that is used, and its line: the one that was used before,
    /// so that a copy that is added changes nothing; else the first.
    fn choose(&self) -> BTreeMap<ObjectRef, (Place, u32)> {
        let mut chosen: BTreeMap<ObjectRef, (u32, (Place, u32))> = BTreeMap::new();
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
                let place = Place { file: Arc::clone(&origin.file), number };
                chosen.insert(id.clone(), (rank, (place, origin.line)));
            }
        }
        chosen.into_iter().map(|(id, (_, place))| (id, place)).collect()
    }

    /// Reads a file's documents, taking over those whose text was there before.
    fn documents(&self, path: &Path, text: &str, former: Option<&File>) -> Vec<Document> {
        let file: Arc<str> = self.relative(path);
        let mut known: HashMap<Hash, &Document> = HashMap::new();
        known.extend(former.iter().flat_map(|f| &f.documents).map(|d| (d.text, d)));
        let chunks = yaml::documents(text);
        let read = |chunk: &yaml::Chunk<'_>| match known.get(&Hash::of(chunk.text.as_bytes())) {
            Some(document) => document.moved_to(chunk.line),
            None => document::read(&file, *chunk),
        };
        chunks.iter().take(MAX_DOCUMENTS + 1).map(read).collect()
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
    let same = |(a, b): (&Document, &Document)| a.text == b.text && a.line == b.line;
    before.len() != after.len() || !before.iter().zip(after).all(same)
}

/// How long until the file may be read; `None`: now.
fn unsettled(meta: &fs::Metadata, busy_since: Option<&SystemTime>, now: SystemTime) -> Option<Duration> {
    let rest = |since: SystemTime, pause: Duration| {
        // A time in the future (another clock) tells nothing.
        now.duration_since(since).ok().and_then(|age| pause.checked_sub(age)).filter(|rest| !rest.is_zero())
    };
    let young = meta.modified().ok().and_then(|time| rest(time, SETTLES));
    let busy = busy_since.and_then(|since| rest(*since, WRITER_PAUSE));
    young.max(busy)
}

fn read(path: &Path) -> Reading {
    let read = || -> io::Result<(Stamp, Option<Vec<u8>>)> {
        // Not to hang where a pipe has just taken the file's place.
        let nonblock = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
        let mut file = fs::OpenOptions::new().read(true).custom_flags(nonblock).open(path)?;
        let before = file.metadata()?;
        if !before.is_file() {
            return Err(io::Error::other("is no regular file any more"));
        }
        if before.len() > MAX_FILE {
            return Err(io::Error::other(format!("is larger than {} MiB: split it", MAX_FILE >> 20)));
        }
        let mut bytes = vec![];
        (&mut file).take(MAX_FILE + 1).read_to_end(&mut bytes)?;
        let stamp = Stamp::of(&file.metadata()?);
        let whole = stamp == Stamp::of(&before) && bytes.len() as u64 == stamp.size;
        Ok((stamp, whole.then_some(bytes)))
    };
    match read() {
        Ok((_, None)) => Reading::Torn,
        Ok((stamp, Some(bytes))) => match String::from_utf8(bytes) {
            Ok(text) => Reading::Text(stamp, text),
            Err(error) => {
                let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
                let line = good.iter().filter(|b| **b == b'\n').count() + 1;
                Reading::Failed(format!("is not UTF-8 (line {line}); what it held last stays in force"))
            }
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Reading::Torn,
        Err(error) => Reading::Failed(format!("can't be read: {error}; what it held last stays in force")),
    }
}

#[cfg(test)]
mod tests;
