//! What the small numbers of an operation stand for. The pools are small, so that operations meet, and odd, so that
//! byte order, Unicode and the ends of number ranges matter.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;
use store_api::json::Extra;
use store_api::{
    Account, Agent, AgentId, Amount, ChannelId, DigestKey, Entity, IdempotencyKey, MeterName, Name,
    PrincipalId, ReservationId, RunId, Schedule, Secret, SecretDigest, Skill, SkillId, Tag, VersionId,
    Visibility, WorkerId,
};

use super::catalog::Shelf;
use super::op::{Doc, Flaw, Times};
use super::world::{Shelved, World};

fn pick<T: Copy>(pool: &[T], index: u8) -> T {
    pool[usize::from(index) % pool.len()]
}

/// Ids of skills, of agents and of checkpointed runs: the same words, so that kinds could be mixed up.
pub(super) const IDS: [&str; 4] = ["a", "B", "a/b", "é"];
pub(super) const RUNS: [&str; 7] = ["a", "B", "r", "r0", "r00", "ü ü", "\"'%_\\"];
pub(super) const VERSIONS: [&str; 8] = ["v", "V", "v1", "v10", "v2", "版", "a", "B"];
pub(super) const PRINCIPALS: [&str; 3] = ["o", "O", "o2"];
pub(super) const NAMES: [&str; 4] = ["n", "N", "name", "名"];
pub(super) const CHANNELS: [&str; 2] = ["c", "#c"];
pub(super) const TAGS: [&str; 2] = ["t", "T"];
pub(super) const CRONS: [&str; 2] = ["* * * * *", "@daily"];
pub(super) const ZONES: [&str; 2] = ["", "Europe/Berlin"];

pub(super) fn skill_id(index: u8) -> SkillId {
    SkillId::new(pick(&IDS, index)).unwrap()
}
pub(super) fn agent_id(index: u8) -> AgentId {
    AgentId::new(pick(&IDS, index)).unwrap()
}
pub(super) fn run_id(index: u8) -> RunId {
    RunId::new(pick(&RUNS, index)).unwrap()
}
pub(super) fn version_id(index: u8) -> VersionId {
    VersionId::new(pick(&VERSIONS, index)).unwrap()
}
pub(super) fn principal(index: u8) -> PrincipalId {
    PrincipalId::new(pick(&PRINCIPALS, index)).unwrap()
}
pub(super) fn name(index: u8) -> Name {
    Name::new(pick(&NAMES, index)).unwrap()
}
pub(super) fn channel(index: u8) -> ChannelId {
    ChannelId::new(pick(&CHANNELS, index)).unwrap()
}
pub(super) fn tag(index: u8) -> Tag {
    Tag::new(pick(&TAGS, index)).unwrap()
}
pub(super) fn worker(index: u8) -> WorkerId {
    WorkerId::new(pick(&["w", "W"], index)).unwrap()
}
pub(super) fn reservation(index: u8) -> ReservationId {
    ReservationId::new(pick(&["h", "H", "k"], index)).unwrap()
}
pub(super) fn key(index: u8) -> IdempotencyKey {
    IdempotencyKey::new(pick(&["k", "h", "H"], index)).unwrap()
}

pub(super) fn webhook(index: u8) -> SecretDigest {
    let secret = pick(&["first-secret-of-the-model", "second-secret-of-the-model"], index);
    DigestKey::new("model", [7; 32]).unwrap().digest(&Secret::new(secret).unwrap())
}

/// An account: caller, meter, and the window as text, in nanoseconds, and in how many buckets.
pub(super) struct AccountOf {
    pub(super) key: [&'static str; 3],
    pub(super) length: i128,
    pub(super) buckets: Option<i128>,
}

pub(super) const ACCOUNTS: [AccountOf; 5] = [
    AccountOf { key: ["o", "usd", "rollover:1s"], length: 1_000_000_000, buckets: None },
    AccountOf { key: ["o", "usd", "rollover:10ns"], length: 10, buckets: None },
    AccountOf { key: ["o", "usd", "sliding:10s/5"], length: 10_000_000_000, buckets: Some(5) },
    AccountOf { key: ["O", "tokens", "sliding:12ns/3"], length: 12, buckets: Some(3) },
    AccountOf { key: ["o\"", "usd", "rollover:7d"], length: 604_800_000_000_000, buckets: None },
];

pub(super) fn account(index: u8) -> (&'static AccountOf, Account) {
    let of = &ACCOUNTS[usize::from(index) % ACCOUNTS.len()];
    let [caller, meter, window] = of.key;
    let account = Account::new(
        PrincipalId::new(caller).unwrap(),
        MeterName::new(meter).unwrap(),
        window.parse().unwrap(),
    );
    (of, account)
}

/// Small amounts, and those around the largest.
pub(super) fn amount(index: u8) -> Amount {
    let most = 9_223_372_036_854_775_807;
    let pool = [0, 1, 1, 2, 3, 5, 7, 10, 100, 1_000_000, most / 2, most - 1, most];
    Amount::from_micros(pick(&pool, index)).unwrap()
}

pub(super) fn lease(index: u8) -> Duration {
    let week = Duration::from_secs(604_800);
    let (ns, s) = (Duration::from_nanos(1), Duration::from_secs(1));
    pick(&[ns, 10 * ns, s, s, 60 * s, 60 * s, week, week + ns, Duration::ZERO], index)
}

pub(super) fn max(index: u8) -> usize {
    pick(&[1, 1, 2, 2, 3, 5, 1000, 1000, 1001, 0], index)
}

/// Text, sometimes long, sometimes strange.
pub(super) fn body(index: u8) -> String {
    match index % 6 {
        0 => String::new(),
        1 => "long ".repeat(500),
        2 => "\u{feff}\r\n\t\u{1}\u{7f}\u{2028}🎯 \\ \" é e\u{301}".into(),
        _ => format!("body {index}"),
    }
}

/// Unknown fields: numbers at the ends of their ranges, floats that need all digits.
pub(super) fn extra(index: u8) -> Extra {
    let value = match index % 4 {
        0 => return Extra::new(),
        1 => json!({ "f": 0.1 + 0.2, "g": 5e-324, "max": u64::MAX, "min": i64::MIN }),
        2 => json!({ "deep": [[[{ "x": [null, true, ""] }]]], "": 1, "ключ": "значение" }),
        _ => json!({ "n": index, "zero": -0.0 }),
    };
    value.as_object().unwrap().clone()
}

fn flawed(mut extra: Extra, flaw: Option<Flaw>) -> Extra {
    match flaw {
        Some(Flaw::Nul) => drop(extra.insert("x".into(), json!(["\0"]))),
        Some(Flaw::Shadow) => drop(extra.insert("id".into(), json!(1))),
        None => {}
    }
    extra
}

/// The unknown fields of a run.
pub(super) fn run_extra(index: u8, flaw: Option<Flaw>) -> Extra {
    flawed(extra(index), flaw)
}

/// Whether unknown fields are flawed as [`Flaw`] makes them.
pub(super) fn is_flawed(extra: &Extra) -> bool {
    extra.contains_key("id") || extra.get("x").is_some_and(|x| x[0] == "\0")
}

pub(super) fn schedule(world: &World, times: &Times) -> Schedule {
    let lease = times.lease.then(|| store_api::Lease {
        worker: worker(0),
        until: world.when(super::op::When::Near(5)),
        token: store_api::LeaseToken(1),
    });
    Schedule {
        cron: pick(&CRONS, times.cron).into(),
        time_zone: pick(&ZONES, times.zone).into(),
        next_run_at: world.maybe(times.next),
        last_run_at: world.maybe(times.last),
        lease,
        extra: extra(times.cron),
    }
}

fn visibility(index: u8) -> Visibility {
    pick(&[Visibility::Private, Visibility::Shared, Visibility::Public], index)
}

fn one<T: Ord>(index: Option<u8>, make: impl Fn(u8) -> T) -> BTreeSet<T> {
    index.map(make).into_iter().collect()
}

/// What skills and agents have in common.
macro_rules! common {
    ($doc:ident, $world:ident, $made:ident) => {
        $made.description = body($doc.body.wrapping_add(1));
        $made.tags = one($doc.tag, tag);
        $made.visibility = visibility($doc.visibility);
        $made.shared_with = one($doc.shared, principal);
        $made.exposed_to_chat = $doc.exposed;
        $made.tools = vec![body($doc.body)];
        $made.inputs = extra($doc.body.wrapping_add(1));
        $made.schedule = $doc.schedule.as_ref().map(|times| schedule($world, times));
        $made.extra = flawed(extra($doc.body), $doc.flaw);
    };
}

macro_rules! setters {
    () => {
        fn set_name(&mut self, name: Name) {
            self.name = name;
        }
        fn set_schedule(&mut self, schedule: Option<Schedule>) {
            self.schedule = schedule;
        }
    };
}

fn times_are_flawed(schedule: Option<&Schedule>) -> bool {
    let times = schedule.map(|s| [s.next_run_at, s.last_run_at, s.lease.as_ref().map(|lease| lease.until)]);
    times.is_some_and(|times| super::world::check_times(&times).is_err())
}

impl Shelved for Skill {
    const WHAT: Entity = Entity::Skill;

    fn shelf(world: &World) -> &Shelf<Skill> {
        &world.skills
    }
    fn shelf_mut(world: &mut World) -> &mut Shelf<Skill> {
        &mut world.skills
    }
    fn make(world: &World, doc: &Doc) -> Skill {
        let mut skill = Skill::new(skill_id(doc.id), principal(doc.owner), name(doc.name));
        common!(doc, world, skill);
        skill.body = body(doc.body);
        skill
    }
    fn is_flawed(&self) -> bool {
        is_flawed(&self.extra) || self.body.contains('\0') || times_are_flawed(self.schedule.as_ref())
    }
    fn set_body(&mut self, body: String) {
        self.body = body;
    }
    fn set_id(&mut self, id: u8) {
        self.id = skill_id(id);
    }
    setters!();
}

impl Shelved for Agent {
    const WHAT: Entity = Entity::Agent;

    fn shelf(world: &World) -> &Shelf<Agent> {
        &world.agents
    }
    fn shelf_mut(world: &mut World) -> &mut Shelf<Agent> {
        &mut world.agents
    }
    fn make(world: &World, doc: &Doc) -> Agent {
        let mut agent = Agent::new(agent_id(doc.id), principal(doc.owner), name(doc.name));
        common!(doc, world, agent);
        agent.prompt = body(doc.body);
        agent.skills = vec![skill_id(doc.body)];
        agent.sub_agents = vec![agent_id(doc.body)];
        agent.caps.max_cost = Some(amount(doc.body));
        agent.channel_filter = one(doc.channel, channel);
        agent.webhook = doc.webhook.map(webhook);
        agent
    }
    fn is_flawed(&self) -> bool {
        is_flawed(&self.extra) || self.prompt.contains('\0') || times_are_flawed(self.schedule.as_ref())
    }
    fn set_body(&mut self, body: String) {
        self.prompt = body;
    }
    fn set_id(&mut self, id: u8) {
        self.id = agent_id(id);
    }
    setters!();
}
