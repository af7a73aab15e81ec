//! Definitions: skills and agents, the documents that people edit.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::hash::Hash;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::json::{Extra, Weigh};
use crate::{
    AgentId, Amount, Catalog, ChannelId, DefinitionRecord, Entity, List, Name, PrincipalId, Record, Result,
    Schedule, Seams, SecretDigest, SkillId, Tag, Version,
};

/// Who may see a definition.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Visibility {
    /// Everybody.
    Public,
    /// Its owner, and those in `shared_with`.
    Shared,
    /// Its owner.
    #[default]
    Private,
}

/// A skill: instructions, with the tools and inputs they need.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Skill {
    /// Its id.
    pub id: SkillId,
    /// Whose it is.
    pub owner: PrincipalId,
    /// What it is called; unique among the owner's skills.
    pub name: Name,
    /// What it is for.
    #[serde(default)]
    pub description: String,
    /// What it is found by.
    #[serde(default)]
    pub tags: BTreeSet<Tag>,
    /// Who may see it.
    #[serde(default)]
    pub visibility: Visibility,
    /// Who else may see it, while it is [`Visibility::Shared`].
    #[serde(default)]
    pub shared_with: BTreeSet<PrincipalId>,
    /// Whether a chat may offer it.
    #[serde(default)]
    pub exposed_to_chat: bool,
    /// The instructions.
    #[serde(default)]
    pub body: String,
    /// The tools that it uses, in the host's own names.
    #[serde(default)]
    pub tools: Vec<String>,
    /// The inputs that it takes, in the host's own form (often a JSON Schema).
    #[serde(default)]
    pub inputs: Extra,
    /// When it runs by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// Every field that this version does not know, kept as it is.
    #[serde(flatten)]
    pub extra: Extra,
}

/// An agent: a prompt, with the skills and other agents that it may use.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Agent {
    /// Its id.
    pub id: AgentId,
    /// Whose it is.
    pub owner: PrincipalId,
    /// What it is called; unique among the owner's agents.
    pub name: Name,
    /// What it is for.
    #[serde(default)]
    pub description: String,
    /// What it is found by.
    #[serde(default)]
    pub tags: BTreeSet<Tag>,
    /// Who may see it.
    #[serde(default)]
    pub visibility: Visibility,
    /// Who else may see it, while it is [`Visibility::Shared`].
    #[serde(default)]
    pub shared_with: BTreeSet<PrincipalId>,
    /// Whether a chat may offer it.
    #[serde(default)]
    pub exposed_to_chat: bool,
    /// The system prompt.
    #[serde(default)]
    pub prompt: String,
    /// The tools that it uses, in the host's own names.
    #[serde(default)]
    pub tools: Vec<String>,
    /// The inputs that it takes, in the host's own form.
    #[serde(default)]
    pub inputs: Extra,
    /// When it runs by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// The skills that it may use, in its own order of preference.
    #[serde(default)]
    pub skills: Vec<SkillId>,
    /// The agents that it may hand work to.
    #[serde(default)]
    pub sub_agents: Vec<AgentId>,
    /// What one run of it may use up.
    #[serde(default)]
    pub caps: Caps,
    /// The channels that it answers on: what [`AgentStore::by_channel`](crate::AgentStore::by_channel) looks in.
    #[serde(default)]
    pub channel_filter: BTreeSet<ChannelId>,
    /// The digest of its webhook's secret; unique among agents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<SecretDigest>,
    /// Every field that this version does not know, kept as it is.
    #[serde(flatten)]
    pub extra: Extra,
}

/// What one run may use up; `None` is no cap. The host enforces them.
#[derive(Debug, Clone, PartialEq, Default, serde::Serialize, serde::Deserialize)]
pub struct Caps {
    /// How many turns of the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_iterations: Option<u32>,
    /// How many seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_seconds: Option<u32>,
    /// How much money.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_cost: Option<Amount>,
    /// Caps that this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

impl Caps {
    pub(crate) const FIELDS: &'static [&'static str] = &["max_iterations", "max_seconds", "max_cost"];
}

/// Which catalog a definition lives in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Skills.
    Skill,
    /// Agents.
    Agent,
}

impl Kind {
    /// For engines: the number that stands for the kind in keys and tables. It never changes.
    pub fn code(self) -> u8 {
        match self {
            Kind::Skill => 1,
            Kind::Agent => 2,
        }
    }

    /// The same kind as an error names it.
    pub fn entity(self) -> Entity {
        match self {
            Kind::Skill => Entity::Skill,
            Kind::Agent => Entity::Agent,
        }
    }

    /// The list of definitions of this kind.
    pub fn list(self) -> List {
        match self {
            Kind::Skill => List::Skills,
            Kind::Agent => List::Agents,
        }
    }

    /// The list of versions of this kind.
    pub fn versions(self) -> List {
        match self {
            Kind::Skill => List::SkillVersions,
            Kind::Agent => List::AgentVersions,
        }
    }

    /// The list of due definitions of this kind.
    pub fn due(self) -> List {
        match self {
            Kind::Skill => List::DueSkills,
            Kind::Agent => List::DueAgents,
        }
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Skill {}
    impl Sealed for super::Agent {}
}

/// A kind of document that a [`Catalog`] keeps: [`Skill`] or [`Agent`]. Engines write one catalog for both.
pub trait Definition:
    sealed::Sealed + Serialize + DeserializeOwned + Clone + PartialEq + Debug + Send + Sync + 'static
{
    /// Which catalog it lives in.
    const KIND: Kind;
    /// Its fields as they stand in JSON: no unknown field may have such a name.
    const FIELDS: &'static [&'static str];
    /// The type of its id.
    type Id: AsRef<str>
        + Clone
        + Debug
        + Eq
        + Ord
        + Hash
        + TryFrom<String, Error = crate::Error>
        + Serialize
        + DeserializeOwned
        + Send
        + Sync
        + 'static;

    /// Its id.
    fn id(&self) -> &Self::Id;
    /// Whose it is.
    fn owner(&self) -> &PrincipalId;
    /// What it is called.
    fn name(&self) -> &Name;
    /// What it is found by.
    fn tags(&self) -> &BTreeSet<Tag>;
    /// Who may see it.
    fn visibility(&self) -> Visibility;
    /// Who else may see it, while it is shared.
    fn shared_with(&self) -> &BTreeSet<PrincipalId>;
    /// Whether a chat may offer it.
    fn exposed_to_chat(&self) -> bool;
    /// When it runs by itself.
    fn schedule(&self) -> Option<&Schedule>;
    /// The schedule, to change it.
    fn schedule_mut(&mut self) -> Option<&mut Schedule>;
    /// The channels that it answers on. A skill has none.
    fn channels(&self) -> Option<&BTreeSet<ChannelId>>;
    /// The digest of its webhook's secret. A skill has none.
    fn webhook(&self) -> Option<&SecretDigest>;
    /// Checks what the types leave open: sizes, depth, U+0000, times, unknown fields that shadow known ones.
    ///
    /// # Errors
    /// `InvalidInput` naming the field.
    fn validate(&self) -> Result<()>;

    /// The catalog of this kind among the seams.
    fn catalog(seams: &dyn Seams) -> &dyn Catalog<Self>;
    /// Itself as a record of an export.
    fn record(record: DefinitionRecord<Self>) -> Record;
    /// A version of it as a record of an export.
    fn version_record(version: Version<Self>) -> Record;
}

macro_rules! common_accessors {
    ($id:ty) => {
        type Id = $id;

        fn id(&self) -> &Self::Id {
            &self.id
        }
        fn owner(&self) -> &PrincipalId {
            &self.owner
        }
        fn name(&self) -> &Name {
            &self.name
        }
        fn tags(&self) -> &BTreeSet<Tag> {
            &self.tags
        }
        fn visibility(&self) -> Visibility {
            self.visibility
        }
        fn shared_with(&self) -> &BTreeSet<PrincipalId> {
            &self.shared_with
        }
        fn exposed_to_chat(&self) -> bool {
            self.exposed_to_chat
        }
        fn schedule(&self) -> Option<&Schedule> {
            self.schedule.as_ref()
        }
        fn schedule_mut(&mut self) -> Option<&mut Schedule> {
            self.schedule.as_mut()
        }
    };
}

/// What skills and agents have in common, weighed.
fn weigh_common<D: Definition>(
    weigh: &mut Weigh,
    doc: &D,
    description: &str,
    tools: &[String],
    inputs: &Extra,
) -> Result<()> {
    weigh.texts("id", [doc.id().as_ref(), doc.owner().as_str(), doc.name().as_str()])?;
    weigh.text("description", description)?;
    weigh.texts("tags", doc.tags())?;
    weigh.texts("shared_with", doc.shared_with())?;
    weigh.texts("tools", tools)?;
    weigh.map("inputs", inputs)?;
    doc.schedule().map_or(Ok(()), |schedule| schedule.weigh(weigh))
}

impl Skill {
    /// A private skill with nothing in it.
    pub fn new(id: SkillId, owner: PrincipalId, name: Name) -> Self {
        Skill {
            id,
            owner,
            name,
            description: String::new(),
            tags: BTreeSet::new(),
            visibility: Visibility::Private,
            shared_with: BTreeSet::new(),
            exposed_to_chat: false,
            body: String::new(),
            tools: Vec::new(),
            inputs: Extra::new(),
            schedule: None,
            extra: Extra::new(),
        }
    }
}

impl Definition for Skill {
    const KIND: Kind = Kind::Skill;
    const FIELDS: &'static [&'static str] = &[
        "id",
        "owner",
        "name",
        "description",
        "tags",
        "visibility",
        "shared_with",
        "exposed_to_chat",
        "body",
        "tools",
        "inputs",
        "schedule",
    ];
    common_accessors!(SkillId);

    fn channels(&self) -> Option<&BTreeSet<ChannelId>> {
        None
    }
    fn webhook(&self) -> Option<&SecretDigest> {
        None
    }
    fn validate(&self) -> Result<()> {
        let mut weigh = Weigh::new();
        weigh_common(&mut weigh, self, &self.description, &self.tools, &self.inputs)?;
        weigh.text("body", &self.body)?;
        weigh.extra("extra", &self.extra, Self::FIELDS)
    }
    fn catalog(seams: &dyn Seams) -> &dyn Catalog<Self> {
        seams.skills()
    }
    fn record(record: DefinitionRecord<Self>) -> Record {
        Record::Skill(record)
    }
    fn version_record(version: Version<Self>) -> Record {
        Record::SkillVersion(version)
    }
}

impl Agent {
    /// A private agent with nothing in it.
    pub fn new(id: AgentId, owner: PrincipalId, name: Name) -> Self {
        Agent {
            id,
            owner,
            name,
            description: String::new(),
            tags: BTreeSet::new(),
            visibility: Visibility::Private,
            shared_with: BTreeSet::new(),
            exposed_to_chat: false,
            prompt: String::new(),
            tools: Vec::new(),
            inputs: Extra::new(),
            schedule: None,
            skills: Vec::new(),
            sub_agents: Vec::new(),
            caps: Caps::default(),
            channel_filter: BTreeSet::new(),
            webhook: None,
            extra: Extra::new(),
        }
    }
}

impl Definition for Agent {
    const KIND: Kind = Kind::Agent;
    const FIELDS: &'static [&'static str] = &[
        "id",
        "owner",
        "name",
        "description",
        "tags",
        "visibility",
        "shared_with",
        "exposed_to_chat",
        "prompt",
        "tools",
        "inputs",
        "schedule",
        "skills",
        "sub_agents",
        "caps",
        "channel_filter",
        "webhook",
    ];
    common_accessors!(AgentId);

    fn channels(&self) -> Option<&BTreeSet<ChannelId>> {
        Some(&self.channel_filter)
    }
    fn webhook(&self) -> Option<&SecretDigest> {
        self.webhook.as_ref()
    }
    fn validate(&self) -> Result<()> {
        let mut weigh = Weigh::new();
        weigh_common(&mut weigh, self, &self.description, &self.tools, &self.inputs)?;
        weigh.text("prompt", &self.prompt)?;
        weigh.texts("skills", &self.skills)?;
        weigh.texts("sub_agents", &self.sub_agents)?;
        weigh.texts("channel_filter", &self.channel_filter)?;
        weigh.extra("caps", &self.caps.extra, Caps::FIELDS)?;
        weigh.extra("extra", &self.extra, Self::FIELDS)
    }
    fn catalog(seams: &dyn Seams) -> &dyn Catalog<Self> {
        seams.agents()
    }
    fn record(record: DefinitionRecord<Self>) -> Record {
        Record::Agent(record)
    }
    fn version_record(version: Version<Self>) -> Record {
        Record::AgentVersion(version)
    }
}

/// Which definitions to list. Every field that is set must match.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DefinitionFilter {
    /// Only those of this owner.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<PrincipalId>,
    /// Only those that this principal may see: its own, public ones, and those shared with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub visible_to: Option<PrincipalId>,
    /// Only those that a chat may offer, or only those that it may not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exposed_to_chat: Option<bool>,
    /// Only those with this tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<Tag>,
    /// Only those with a schedule, or only those without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduled: Option<bool>,
}

impl DefinitionFilter {
    /// The rule: an engine may narrow by its indexes, but this decides.
    pub fn matches<D: Definition>(&self, doc: &D) -> bool {
        let visible_to = |who: &PrincipalId| {
            doc.owner() == who
                || match doc.visibility() {
                    Visibility::Public => true,
                    Visibility::Shared => doc.shared_with().contains(who),
                    Visibility::Private => false,
                }
        };
        self.owner.as_ref().is_none_or(|owner| doc.owner() == owner)
            && self.visible_to.as_ref().is_none_or(visible_to)
            && self.exposed_to_chat.is_none_or(|exposed| doc.exposed_to_chat() == exposed)
            && self.tag.as_ref().is_none_or(|tag| doc.tags().contains(tag))
            && self.scheduled.is_none_or(|scheduled| doc.schedule().is_some() == scheduled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn keys<T: Serialize>(value: &T) -> Vec<String> {
        let value = serde_json::to_value(value).unwrap();
        let mut keys: Vec<String> = value.as_object().unwrap().keys().cloned().collect();
        keys.sort();
        keys
    }

    fn sorted(fields: &[&str]) -> Vec<String> {
        let mut fields: Vec<String> = fields.iter().map(|f| (*f).to_owned()).collect();
        fields.sort();
        fields
    }

    #[test]
    fn kinds_have_numbers_and_only_agents_have_channels() {
        assert_eq!([Kind::Skill, Kind::Agent].map(Kind::code), [1, 2], "files hold them");
        assert!(full_agent().channels().is_some());
        let owner = PrincipalId::new("o").unwrap();
        let skill = Skill::new(SkillId::new("s").unwrap(), owner, Name::new("n").unwrap());
        assert!(skill.channels().is_none());
    }

    fn full_agent() -> Agent {
        let digest = format!("hmac-sha256:k:{}", "0".repeat(64)).parse().unwrap();
        let mut agent =
            Agent::new(AgentId::new("a").unwrap(), PrincipalId::new("o").unwrap(), Name::new("n").unwrap());
        let time = crate::time::from_nanos(1);
        let lease = crate::Lease {
            worker: crate::WorkerId::new("w").unwrap(),
            until: time,
            token: crate::LeaseToken(1),
        };
        agent.schedule = Some(Schedule {
            last_run_at: Some(time),
            lease: Some(lease),
            ..Schedule::new("c", "z", Some(time))
        });
        agent.webhook = Some(digest);
        agent.caps = Caps {
            max_iterations: Some(1),
            max_seconds: Some(1),
            max_cost: Some(Amount::ZERO),
            extra: Extra::new(),
        };
        agent
    }

    #[test]
    fn the_lists_of_known_fields_are_complete() {
        let agent = full_agent();
        assert_eq!(keys(&agent), sorted(Agent::FIELDS));
        assert_eq!(keys(&agent.caps), sorted(Caps::FIELDS));
        assert_eq!(keys(&agent.schedule), sorted(Schedule::FIELDS));
        let mut skill = Skill::new(SkillId::new("s").unwrap(), agent.owner, agent.name);
        skill.schedule = agent.schedule;
        assert_eq!(keys(&skill), sorted(Skill::FIELDS));
    }

    #[test]
    fn unknown_fields_round_trip_and_may_not_shadow() {
        let text = json!({
            "id": "a", "owner": "o", "name": "n", "model": {"name": "m", "f": 0.1},
            "schedule": {"cron": "x", "jitter": 3}, "caps": {"max_tokens": 5},
        });
        let agent: Agent = serde_json::from_value(text.clone()).unwrap();
        agent.validate().unwrap();
        let back = serde_json::to_value(&agent).unwrap();
        assert_eq!(back["model"], text["model"]);
        assert_eq!(back["schedule"]["jitter"], 3);
        assert_eq!(back["caps"]["max_tokens"], 5);
        for field in ["webhook", "id", "schedule"] {
            let mut agent = agent.clone();
            agent.extra.insert(field.into(), json!(1));
            let error = agent.validate().unwrap_err().to_string();
            assert_eq!(error, format!("invalid extra.{field}: shadows the field of that name"));
        }
        let mut agent = full_agent();
        agent.schedule.as_mut().unwrap().extra.insert("lease".into(), json!(1));
        assert!(agent.validate().is_err());
    }

    #[test]
    fn visibility_is_own_public_or_shared() {
        let who = PrincipalId::new("me").unwrap();
        let filter = DefinitionFilter { visible_to: Some(who.clone()), ..Default::default() };
        let mut skill =
            Skill::new(SkillId::new("s").unwrap(), PrincipalId::new("you").unwrap(), Name::new("n").unwrap());
        skill.shared_with.insert(who.clone());
        assert!(!filter.matches(&skill), "a private skill ignores its list");
        skill.visibility = Visibility::Shared;
        assert!(filter.matches(&skill));
        skill.shared_with.clear();
        assert!(!filter.matches(&skill));
        skill.visibility = Visibility::Public;
        assert!(filter.matches(&skill));
        skill.visibility = Visibility::Private;
        skill.owner = who;
        assert!(filter.matches(&skill));
    }
}
