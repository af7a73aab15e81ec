//! Definition files (SKILL.md and agent Markdown with YAML front matter) read and kept in a store
