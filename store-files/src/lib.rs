//! Definition files (SKILL.md and agent Markdown with YAML front matter) read and kept in a store.
//!
//! A definition is a Markdown file that people edit: a block of YAML between two `---` lines says what it
//! is, the text below says what to do. Two kinds are read here.
//!
//! - **Skills** follow the public Agent Skills format: a directory with a `SKILL.md` whose front matter has
//!   `name` and `description` and may have `license`, `compatibility`, `metadata` and `allowed-tools`.
//! - **Agents** are `*.md` files whose front matter has `name` and `description` and may have `tools`,
//!   `model` and `skills`.
//!
//! Whatever else the front matter says is kept in `extra`, as JSON. Nothing is dropped without a word: what
//! could not be taken as it stands is either refused with path, line and reason ([`FileError`]) or noted as
//! a [`Warning`] on the file.
//!
//! [`sync_skills`] and [`sync_agents`] put a directory of them into a store; see [`sync`] for what goes where.
//!
//! ```
//! let file = store_files::parse_skill(
//!     "skills/check-links/SKILL.md",
//!     b"---\nname: check-links\ndescription: Use when: a page moved\nversion: 3\n---\n# Check links\n",
//! )?;
//! assert_eq!(file.name, "check-links");
//! assert_eq!(file.description, "Use when: a page moved");   // not valid YAML, but what was meant
//! assert_eq!(file.warnings[0].line, Some(3));               // ... and it says so
//! assert_eq!(file.extra["version"], 3);
//! assert_eq!(file.body, "# Check links\n");
//! # Ok::<(), store_files::FileError>(())
//! ```
//!
//! # What is read, and how
//!
//! - **Encoding**: UTF-8, with or without a byte order mark. Anything else, and a NUL anywhere, is refused.
//! - **Delimiters**: see [`front_matter`]. The body is every byte after the closing line, line ends included.
//! - **YAML**: 1.2, core schema. `yes` and `on` are text, `0o17` is 15, a date is text. Integers are exact;
//!   one beyond `i64` and `u64` is refused, as are NaN and infinities, which JSON cannot hold. A number whose
//!   text JSON would not give back (`1.10`) is read as the number, with a warning. Keys that are not text
//!   become text. Duplicate keys, tags outside the core schema, and a second document are refused.
//! - **Bounds**: [`MAX_FILE_BYTES`], [`MAX_FRONT_MATTER_BYTES`], [`MAX_YAML_DEPTH`], and
//!   [`MAX_YAML_NODES`], which counts what aliases expand to.
//!
//! # Repair of YAML that is not quite YAML
//!
//! Collections in the wild hold front matter such as `description: Use when: the user asks`, which is not
//! valid YAML, though most tools take it. A file is parsed strictly first, and if that works nothing is
//! repaired. If it fails, each top-level `key: value` entry is tried alone, and an entry that fails alone has
//! its value put in quotes *as it stands*, after which the whole is parsed strictly again. Each repaired
//! line is a [`Warning`]. The rules:
//!
//! - only entries at the left margin, with a value that starts on the line of the key; nothing nested;
//! - indented lines below belong to the value and are folded as YAML folds them, unless one of them starts
//!   with a key this crate knows (`name:`, `tools:` ...), which is more likely a wrong indentation;
//! - a block scalar (`>` or `|` and nothing else on the line) is never touched, nor is a list or map (`[`,
//!   `{`) that is not closed on the line of the key, or that nothing follows;
//! - a value in quotes that YAML refuses, such as `'It's here'` or `"C:\docs"`, loses the outer pair and
//!   keeps the rest to the letter; if other quotes of that sort stand inside, it keeps all of them;
//! - the result is always text.
//!
//! What still fails is refused with the line in the file and the reason.

mod document;
mod file;
pub mod front_matter;
mod repair;
pub mod sync;
mod walk;
mod yaml;

pub use file::{AgentFile, FileError, SkillFile, Warning, parse_agent, parse_skill};
pub use front_matter::MAX_FRONT_MATTER_BYTES;
pub use sync::{sync_agents, sync_skills};
pub use walk::{
    Collection, DefinitionFile, Kind, MAX_FILE_BYTES, MAX_WALK_DEPTH, MAX_WALK_ENTRIES, Skipped, Walk,
    read_agents, read_file, read_skills, walk,
};
pub use yaml::{MAX_YAML_BYTES, MAX_YAML_DEPTH, MAX_YAML_NODES};
