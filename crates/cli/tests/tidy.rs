//! The rules of the house that a compiler does not check: which crate may use which, that no two
//! files know each other, that each file says what it is for, and that each row of the protocol that
//! is cited is defined.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Crates, and those that they may use. See ARCHITECTURE.md.
const ARROWS: [(&str, &[&str]); 8] = [
    ("core", &[]),
    ("journal", &["core"]),
    ("database", &["core"]),
    ("wire", &["core"]),
    ("client", &["core", "wire", "database"]),
    ("server", &["core", "journal", "database", "wire"]),
    ("cli", &["core", "journal", "database", "wire", "client", "server"]),
    ("sim", &["core", "journal", "database", "wire", "client", "server"]),
];
/// Crates whose files form no circle. What is missing has some yet.
const WITHOUT_CIRCLES: [&str; 6] = ["core", "journal", "database", "wire", "client", "sim"];
/// What looks like a row of the protocol and is none.
const NO_ROWS: [&str; 4] = ["P0", "P50", "P90", "P99"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// All files with an ending below a folder, with their text.
fn files(below: &Path, ending: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![below.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == ending) {
                let text = fs::read_to_string(&path).expect("a text");
                found.push((path, text));
            }
        }
    }
    found.sort();
    found
}

#[test]
fn crates_use_only_those_below_them() {
    let package = |name: &str| match name {
        "client" => "handfast".to_owned(),
        other => format!("handfast-{other}"),
    };
    for (name, may) in ARROWS {
        let manifest = root().join("crates").join(name).join("Cargo.toml");
        let manifest = fs::read_to_string(manifest).expect("the crate is there");
        // What only its tests use is of no account.
        let parts = manifest.split("\n[").filter(|p| p.starts_with("dependencies]"));
        for line in parts.flat_map(str::lines) {
            for (other, _) in ARROWS {
                let uses = line.split([' ', '.', '=']).next() == Some(package(other).as_str());
                assert!(!uses || may.contains(&other), "{name} uses {other}: {line}");
            }
        }
    }
}

#[test]
fn each_file_says_what_it_is_for() {
    for (path, text) in files(&root().join("crates"), "rs") {
        let is_ours = !path.components().any(|part| part.as_os_str() == "target");
        assert!(!is_ours || text.starts_with("//!"), "{} does not open with //!", path.display());
    }
}

#[test]
fn each_row_that_is_cited_is_defined() {
    let mut defined = BTreeSet::new();
    for page in ["docs/protocol.md", "docs/databases.md"] {
        let text = fs::read_to_string(root().join(page)).expect("the page is there");
        let cells = text.lines().filter_map(|line| line.strip_prefix("| ")?.split(" |").next());
        let ids = cells.flat_map(|cell| cell.split([',', ' ', '*'])).filter(|id| is_row(id));
        defined.extend(ids.map(str::to_owned));
    }
    assert!(defined.len() > 70, "the tables are not read: {defined:?}");
    for (path, text) in files(&root().join("crates"), "rs") {
        for line in text.lines().filter(|line| line.trim_start().starts_with("//")) {
            let words = line.split(|c: char| !c.is_ascii_alphanumeric());
            for word in words.filter(|word| is_row(word) && !NO_ROWS.contains(word)) {
                assert!(defined.contains(word), "{}: no row {word}: {line}", path.display());
            }
        }
    }
}

/// A letter of the protocol's tables, or PG, MY, and one or two digits.
fn is_row(word: &str) -> bool {
    let digits = word.trim_start_matches(|c: char| c.is_ascii_uppercase());
    let letters = &word[..word.len() - digits.len()];
    ["C", "P", "L", "PG", "MY"].contains(&letters)
        && (1..=2).contains(&digits.len())
        && digits.bytes().all(|b| b.is_ascii_digit())
}

#[test]
fn no_two_files_know_each_other() {
    for name in WITHOUT_CIRCLES {
        let circle = Modules::of(&root().join("crates").join(name).join("src")).circle();
        assert!(circle.is_none(), "in {name}: {}", circle.unwrap_or_default().join(" -> "));
    }
}

/// The check itself sees a circle, also one through a re-export.
#[test]
fn a_circle_is_seen() {
    let circle = |files: &[(&str, &str)]| {
        let files = files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
        Modules::new(files.collect()).circle().is_some()
    };
    let top = ("", "mod a;\nmod b;\npub use b::B;\n");
    assert!(circle(&[top, ("a", "use crate::B;\n"), ("b", "use super::a::{A, Z};\n")]));
    assert!(circle(&[top, ("a", "use crate::b;\n"), ("b", "fn f() {\n    crate::a::f();\n}\n")]));
    assert!(!circle(&[top, ("a", "use crate::B;\n"), ("b", "// use crate::a;\n")]));
}

/// The files of a crate by their paths as modules, and which uses which.
struct Modules {
    texts: BTreeMap<String, String>,
}

impl Modules {
    fn of(source: &Path) -> Self {
        let texts = files(source, "rs").into_iter().map(|(path, text)| {
            let path = path.strip_prefix(source).expect("below the source").with_extension("");
            let parts: Vec<_> = path.iter().map(|part| part.to_string_lossy()).collect();
            let name = parts.join("::");
            let name = name.strip_suffix("::mod").unwrap_or(&name);
            (if ["lib", "main"].contains(&name) { "" } else { name }.to_owned(), text)
        });
        Self::new(texts.collect())
    }

    /// Without comments and unit tests.
    fn new(texts: BTreeMap<String, String>) -> Self {
        let bare = |text: String| {
            let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
            code.lines()
                .map(|line| line.split("//").next().unwrap_or(""))
                .collect::<Vec<_>>()
                .join("\n")
        };
        Self { texts: texts.into_iter().map(|(name, text)| (name, bare(text))).collect() }
    }

    /// The paths in the `use` declarations of a module, and whether they are public.
    fn declared(&self, module: &str) -> Vec<(String, bool)> {
        let mut found = Vec::new();
        for statement in self.texts[module].split(';') {
            let Some(at) = statement.rfind("use ") else { continue };
            let before = statement[..at].rsplit('\n').next().unwrap_or("").trim();
            if before.is_empty() || before.starts_with("pub") {
                let tree: String =
                    statement[at + 4..].split_whitespace().collect::<Vec<_>>().join(" ");
                let mut paths = Vec::new();
                expand("", &tree, &mut paths);
                found.extend(paths.into_iter().map(|path| (path, !before.is_empty())));
            }
        }
        found
    }

    /// The module in which a path from a module ends, and what it names there.
    fn resolve(&self, module: &str, path: &str) -> Option<(String, String)> {
        let mut here: Vec<&str> = module.split("::").filter(|part| !part.is_empty()).collect();
        let mut rest: Vec<&str> = path.split("::").map(str::trim).collect();
        match rest.first()? {
            &"crate" => here.clear(),
            &"super" | &"self" => {}
            first => {
                let child = [here.clone(), vec![*first]].concat().join("::");
                self.texts.contains_key(&child).then_some(())?;
                rest.insert(0, "self");
            }
        }
        while let Some(first) = rest.first() {
            match *first {
                "crate" | "self" => {}
                "super" => {
                    here.pop()?;
                }
                _ => break,
            }
            rest.remove(0);
        }
        while let Some(first) = rest.first() {
            here.push(first);
            if !self.texts.contains_key(&here.join("::")) {
                here.pop();
                break;
            }
            rest.remove(0);
        }
        Some((here.join("::"), rest.first().unwrap_or(&"").to_string()))
    }

    /// Where something is that a module may only hand on.
    fn origin(&self, found: (String, String), steps: usize) -> String {
        let (module, item) = found;
        if item.is_empty() || steps == 0 {
            return module;
        }
        for (path, is_public) in self.declared(&module) {
            let named = path.split(" as ").next().unwrap_or(&path);
            if is_public
                && path.ends_with(&item)
                && let Some(next) = self.resolve(&module, named)
                && next.1 == item
                && next.0 != module
            {
                return self.origin(next, steps - 1);
            }
        }
        module
    }

    fn used_by(&self, module: &str) -> BTreeSet<String> {
        let mut used = BTreeSet::new();
        let below = format!("{module}::");
        for (path, is_public) in self.declared(module) {
            let named = path.split(" as ").next().unwrap_or(&path);
            let Some(found) = self.resolve(module, named) else { continue };
            let origin = self.origin(found, 6);
            // To hand on what is below is no use of it.
            if !(is_public && (module.is_empty() || origin.starts_with(&below))) {
                used.insert(origin);
            }
        }
        let code = self.texts[module].split('\n').filter(|line| !line.contains("use "));
        for line in code {
            for start in ["crate::", "super::"] {
                for (at, _) in line.match_indices(start) {
                    let is_path = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
                    let path = line[at..].split(|c| !is_path(c)).next().unwrap_or("");
                    if let Some(found) = self.resolve(module, path.trim_end_matches(':')) {
                        used.insert(self.origin(found, 6));
                    }
                }
            }
        }
        // A child is part of its parent, and may use what that has.
        used.retain(|other| {
            !other.is_empty() && other != module && !module.starts_with(&format!("{other}::"))
        });
        used
    }

    /// Modules of which each uses the next, and the last the first.
    fn circle(&self) -> Option<Vec<String>> {
        let edges: BTreeMap<&String, BTreeSet<String>> =
            self.texts.keys().map(|module| (module, self.used_by(module))).collect();
        let mut done = BTreeSet::new();
        for start in self.texts.keys() {
            let mut way = Vec::new();
            if let Some(circle) = walk(start, &edges, &mut way, &mut done) {
                return Some(circle);
            }
        }
        None
    }
}

fn walk(
    at: &String,
    edges: &BTreeMap<&String, BTreeSet<String>>,
    way: &mut Vec<String>,
    done: &mut BTreeSet<String>,
) -> Option<Vec<String>> {
    if let Some(from) = way.iter().position(|before| before == at) {
        return Some(way[from..].to_vec());
    }
    if done.contains(at) {
        return None;
    }
    way.push(at.clone());
    for next in edges.get(at).into_iter().flatten() {
        if let Some(circle) = walk(next, edges, way, done) {
            return Some(circle);
        }
    }
    way.pop();
    done.insert(at.clone());
    None
}

/// The paths of a `use` tree.
fn expand(before: &str, tree: &str, paths: &mut Vec<String>) {
    let Some(open) = tree.find('{') else {
        paths.push(format!("{before}{}", tree.trim()));
        return;
    };
    let inside = tree[open + 1..].trim_end().trim_end_matches('}');
    let before = format!("{before}{}", tree[..open].trim());
    let (mut depth, mut from) = (0, 0);
    for (at, c) in inside.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                expand(&before, &inside[from..at], paths);
                from = at + 1;
            }
            _ => {}
        }
    }
    if !inside[from..].trim().is_empty() {
        expand(&before, &inside[from..], paths);
    }
}
