//! What a file becomes in a store: which key goes into which field.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Map, Value};
use store_api::{Agent, ChannelId, Definition, Name, PrincipalId, Schedule, Skill, Tag};

use crate::file::{AgentFile, FileError, SkillFile, Warning, cut};
use crate::walk::DefinitionFile;

/// The field of a record that lists which of its fields and unknown fields a file said. A key that is taken out of
/// the file goes from the record too; what somebody set by other means stays.
pub const FROM_FILE: &str = "from_file";

/// Where the names of skills are kept that nobody has.
pub const UNRESOLVED_SKILLS: &str = "unresolved_skills";

/// Where the names of agents are kept that nobody has.
pub const UNRESOLVED_SUB_AGENTS: &str = "unresolved_sub_agents";

/// Unknown fields of a record that a sync writes on its own account.
const OURS: &[&str] = &[FROM_FILE, UNRESOLVED_SKILLS, UNRESOLVED_SUB_AGENTS];

/// Where a key goes that would shadow a field of the record: `visibility` is kept as `file.visibility`.
pub const RENAMED: &str = "file.";

/// The names that an agent's file gives and that only a store can turn into ids.
pub(crate) struct Links {
    pub(crate) skills: Vec<String>,
    pub(crate) sub_agents: Vec<String>,
}

/// A file that becomes a document of one kind.
pub(crate) trait Source: DefinitionFile {
    /// The kind.
    type Doc: Definition;

    /// An empty document.
    fn blank(id: <Self::Doc as Definition>::Id, owner: PrincipalId, name: Name) -> Self::Doc;

    /// Puts into `doc` all that the file says but its links, and takes out what only an earlier state of it said.
    fn write(&self, doc: &mut Self::Doc) -> Result<(Links, Vec<Warning>), FileError>;

    /// What was noted when the file was read.
    fn warnings(&self) -> &[Warning];

    /// The line of each key.
    fn lines(&self) -> &BTreeMap<String, usize>;
}

impl Source for SkillFile {
    type Doc = Skill;

    fn blank(id: store_api::SkillId, owner: PrincipalId, name: Name) -> Skill {
        Skill::new(id, owner, name)
    }

    fn write(&self, doc: &mut Skill) -> Result<(Links, Vec<Warning>), FileError> {
        let mut keys = Keys::new(&self.path, &self.lines, &self.extra, &doc.extra);
        keys.refuse_shape("allowed-tools")?;
        doc.description.clone_from(&self.description);
        doc.body.clone_from(&self.body);
        doc.tools.clone_from(&self.allowed_tools);
        doc.tags = keys.tags(std::mem::take(&mut doc.tags))?;
        doc.inputs = keys.inputs(std::mem::take(&mut doc.inputs))?;
        doc.schedule = keys.schedule(doc.schedule.take(), &self.metadata)?;
        keys.keep("license", self.license.clone().map(Value::from));
        keys.keep("compatibility", self.compatibility.clone().map(Value::from));
        let metadata = (!self.metadata.is_empty()).then(|| Value::from(self.metadata.clone()));
        keys.keep("metadata", metadata);
        let warnings = keys.finish(&mut doc.extra, Skill::FIELDS)?;
        Ok((Links { skills: Vec::new(), sub_agents: Vec::new() }, warnings))
    }

    fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    fn lines(&self) -> &BTreeMap<String, usize> {
        &self.lines
    }
}

impl Source for AgentFile {
    type Doc = Agent;

    fn blank(id: store_api::AgentId, owner: PrincipalId, name: Name) -> Agent {
        Agent::new(id, owner, name)
    }

    fn write(&self, doc: &mut Agent) -> Result<(Links, Vec<Warning>), FileError> {
        let mut keys = Keys::new(&self.path, &self.lines, &self.extra, &doc.extra);
        keys.refuse_shape("tools")?;
        keys.refuse_shape("skills")?;
        keys.refuse_secret()?;
        doc.description.clone_from(&self.description);
        doc.prompt.clone_from(&self.body);
        doc.tools.clone_from(&self.tools);
        doc.tags = keys.tags(std::mem::take(&mut doc.tags))?;
        doc.inputs = keys.inputs(std::mem::take(&mut doc.inputs))?;
        doc.schedule = keys.schedule(doc.schedule.take(), &Map::new())?;
        doc.channel_filter = keys.channels(std::mem::take(&mut doc.channel_filter))?;
        let sub_agents = keys.texts("sub-agents")?.unwrap_or_default();
        keys.keep("model", self.model.clone().map(Value::from));
        let warnings = keys.finish(&mut doc.extra, Agent::FIELDS)?;
        Ok((Links { skills: self.skills.clone(), sub_agents }, warnings))
    }

    fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    fn lines(&self) -> &BTreeMap<String, usize> {
        &self.lines
    }
}

/// The keys of one file on their way into a document.
struct Keys<'a> {
    path: &'a Path,
    lines: &'a BTreeMap<String, usize>,
    rest: Map<String, Value>,
    said_before: BTreeSet<String>,
    says: BTreeSet<String>,
    warnings: Vec<Warning>,
}

impl<'a> Keys<'a> {
    fn new(
        path: &'a Path,
        lines: &'a BTreeMap<String, usize>,
        extra: &Map<String, Value>,
        stored: &Map<String, Value>,
    ) -> Self {
        let before = stored.get(FROM_FILE).and_then(Value::as_array).into_iter().flatten();
        let said_before = before.filter_map(Value::as_str).map(str::to_owned).collect();
        Keys { path, lines, rest: extra.clone(), said_before, says: BTreeSet::new(), warnings: Vec::new() }
    }

    fn refusal(&self, key: &str, reason: impl Into<String>) -> FileError {
        FileError::new(self.path, self.lines.get(key).copied(), reason)
    }

    /// Refuses a key that must be a list and was left among the rest because it is none: stored like that it would
    /// no longer say what a definition may do.
    fn refuse_shape(&self, key: &str) -> Result<(), FileError> {
        if self.rest.contains_key(key) {
            return Err(self.refusal(key, format!("`{key}` must be a list of texts")));
        }
        Ok(())
    }

    /// A file may say that an agent has a webhook, not what its secret is.
    fn refuse_secret(&self) -> Result<(), FileError> {
        match self.rest.get("webhook") {
            None | Some(Value::Null | Value::Bool(_)) => Ok(()),
            Some(_) => Err(self.refusal("webhook", "`webhook` must be true or false: no secret in a file")),
        }
    }

    /// A list of texts, or text that lists.
    fn texts(&mut self, key: &str) -> Result<Option<Vec<String>>, FileError> {
        let refusal = || self.refusal(key, format!("`{key}` must be a list of texts"));
        let texts = match self.rest.get(key) {
            None => return Ok(None),
            Some(Value::Null) => Vec::new(),
            Some(Value::String(text)) => cut(text),
            Some(Value::Array(items)) => {
                let texts: Option<_> = items.iter().map(|item| item.as_str().map(str::to_owned)).collect();
                texts.ok_or_else(refusal)?
            }
            Some(_) => return Err(refusal()),
        };
        self.rest.remove(key);
        Ok(Some(texts))
    }

    /// A set of validated texts.
    fn set<T: Ord + TryFrom<String, Error = store_api::Error>>(
        &mut self,
        key: &str,
    ) -> Result<Option<BTreeSet<T>>, FileError> {
        let Some(texts) = self.texts(key)? else { return Ok(None) };
        let set: Result<_, _> = texts.into_iter().map(T::try_from).collect();
        set.map(Some).map_err(|e| self.refusal(key, format!("`{key}`: {e}")))
    }

    /// The value of a field: as the file says; or none any more when it said one before; or else as it was.
    fn field<T: Default>(&mut self, field: &str, says: Option<T>, stored: T) -> T {
        match says {
            Some(value) => {
                self.says.insert(field.to_owned());
                value
            }
            None if self.said_before.contains(field) => T::default(),
            None => stored,
        }
    }

    fn tags(&mut self, stored: BTreeSet<Tag>) -> Result<BTreeSet<Tag>, FileError> {
        let says = self.set("tags")?;
        Ok(self.field("tags", says, stored))
    }

    fn channels(&mut self, stored: BTreeSet<ChannelId>) -> Result<BTreeSet<ChannelId>, FileError> {
        let says = self.set("channels")?;
        Ok(self.field("channel_filter", says, stored))
    }

    /// A map, or a list of maps that each say their `name`.
    fn inputs(&mut self, stored: Map<String, Value>) -> Result<Map<String, Value>, FileError> {
        let refusal = |reason: &str| self.refusal("inputs", reason);
        let says = match self.rest.get("inputs") {
            None => None,
            Some(Value::Null) => Some(Map::new()),
            Some(Value::Object(map)) => Some(map.clone()),
            Some(Value::Array(items)) => {
                let mut inputs = Map::new();
                for item in items {
                    let named = item.as_object().and_then(|map| {
                        let mut map = map.clone();
                        let Value::String(name) = map.remove("name")? else { return None };
                        Some((name, map))
                    });
                    let (name, map) = named.ok_or_else(|| refusal("an input must be a map with a `name`"))?;
                    if inputs.insert(name.clone(), map.into()).is_some() {
                        return Err(refusal(&format!("the input `{name}` is there twice")));
                    }
                }
                Some(inputs)
            }
            Some(_) => return Err(refusal("`inputs` must be a map, or a list of maps with a `name`")),
        };
        self.rest.remove("inputs");
        Ok(self.field("inputs", says, stored))
    }

    /// The schedule as `cron` and `time-zone` say it, with the run state of the stored one.
    fn schedule(
        &mut self,
        stored: Option<Schedule>,
        metadata: &Map<String, Value>,
    ) -> Result<Option<Schedule>, FileError> {
        let cron = self.text("cron", metadata)?;
        let zone = self.text("time-zone", metadata)?;
        let says = match (cron, zone) {
            (Some(cron), zone) => {
                let schedule = stored.clone().unwrap_or_default();
                Some(Schedule { cron, time_zone: zone.unwrap_or_default(), ..schedule })
            }
            (None, Some(_)) => {
                return Err(self.refusal("time-zone", "`time-zone` without `cron` says no time"));
            }
            (None, None) => None,
        };
        Ok(self.field("schedule", says.map(Some), stored))
    }

    /// Text at the top level, or else in `metadata`, which keeps it.
    fn text(&mut self, key: &str, metadata: &Map<String, Value>) -> Result<Option<String>, FileError> {
        let as_text = |key_with_line: &str, value: &Value| match value {
            Value::Null => Ok(None),
            Value::String(text) => Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty())),
            _ => Err(self.refusal(key_with_line, format!("`{key}` must be text; put it in quotes"))),
        };
        let top = self.rest.get(key).map_or(Ok(None), |value| as_text(key, value))?;
        let nested = metadata.get(key).map_or(Ok(None), |value| as_text("metadata", value))?;
        if let (Some(top), Some(nested)) = (&top, &nested)
            && top != nested
        {
            return Err(self.refusal(key, format!("`{key}` is not what `metadata` says it is: `{nested}`")));
        }
        self.rest.remove(key);
        Ok(top.or(nested))
    }

    /// Keeps a known key of the file that the record has no field for.
    fn keep(&mut self, key: &str, value: Option<Value>) {
        if let Some(value) = value {
            self.rest.insert(key.to_owned(), value);
        }
    }

    /// Puts what remains into the record's unknown fields.
    fn finish(mut self, extra: &mut Map<String, Value>, fields: &[&str]) -> Result<Vec<Warning>, FileError> {
        for key in &self.said_before {
            extra.remove(key);
        }
        for (key, value) in std::mem::take(&mut self.rest) {
            let shadows = OURS.contains(&key.as_str()) || fields.contains(&key.as_str());
            let name = if shadows { format!("{RENAMED}{key}") } else { key.clone() };
            if shadows {
                let reason = format!("`{key}` is a field of the record; kept as `{name}`");
                self.warnings.push(Warning { line: self.lines.get(&key).copied(), reason });
            }
            if !self.says.insert(name.clone()) {
                return Err(self.refusal(&key, format!("`{key}` would be kept as `{name}`, which is there")));
            }
            extra.insert(name, value);
        }
        if !self.says.is_empty() {
            extra.insert(FROM_FILE.to_owned(), self.says.into_iter().collect());
        } else {
            extra.remove(FROM_FILE);
        }
        Ok(self.warnings)
    }
}
