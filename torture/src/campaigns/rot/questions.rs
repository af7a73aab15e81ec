//! Everything that can be asked of a store, through every seam, as a list of questions.

use std::fmt::Debug;

use contract_tests::fixture::{at, id, whole};
use store::{
    Agent, AuditStore, Catalog, Definition, ErrorKind, GroupBy, Page, Record, Result, RunFilter, Seams,
    Skill, Store, Usage,
};

/// What a question was answered with: one text for each record.
pub(super) type Answer = Vec<String>;

/// How a question is asked.
type Ask = dyn Fn(&dyn Seams) -> Result<Answer> + Send + Sync;

/// A question.
pub(super) struct Question {
    pub(super) what: String,
    /// Whether the answer is worked out from many records, so that one that is missing changes it.
    pub(super) is_sum: bool,
    /// Whether the answer is the first record of the answer to the next question: when a key is damaged and leads
    /// nowhere, the record behind it is the first. No read can tell that; `verify` does.
    pub(super) is_first_of_next: bool,
    ask: Box<Ask>,
}

impl Question {
    fn new(
        what: impl Into<String>,
        ask: impl Fn(&dyn Seams) -> Result<Answer> + Send + Sync + 'static,
    ) -> Question {
        Question { what: what.into(), is_sum: false, is_first_of_next: false, ask: Box::new(ask) }
    }

    pub(super) fn ask(&self, store: &dyn Store) -> Result<Answer> {
        let mut answer = Vec::new();
        store.snapshot(&mut |seams| {
            answer = (self.ask)(seams)?;
            Ok(())
        })?;
        Ok(answer)
    }
}

/// Every record, in the order of an export, as far as it goes.
pub(super) fn export(store: &dyn Store) -> (Answer, Result<()>) {
    let mut records = Vec::new();
    let end = store.export(&mut |record| {
        records.push(format!("{record:?}"));
        Ok(())
    });
    (records, end)
}

fn each<T: Debug>(items: impl IntoIterator<Item = T>) -> Answer {
    items.into_iter().map(|item| format!("{item:?}")).collect()
}

fn page<T: Debug>(page: Result<Page<T>>) -> Result<Answer> {
    page.map(|page| each(page.items))
}

/// What can be asked about these records, one by one and in lists.
pub(super) fn questions(records: &[Record]) -> Vec<Question> {
    let mut questions = Vec::new();
    for record in records {
        match record.clone() {
            Record::Skill(record) => of_definition::<Skill>(&mut questions, |s| s.skills(), &record.doc),
            Record::Agent(record) => {
                of_definition::<Agent>(&mut questions, |s| s.agents(), &record.doc);
                if let Some(digest) = record.doc.webhook.clone() {
                    questions.push(Question::new("an agent by its webhook", move |s| {
                        s.agents().by_webhook(&digest).map(each)
                    }));
                }
            }
            Record::SkillVersion(version) => questions
                .push(Question::new(format!("version {}", version.id), move |s| {
                    s.skills().version(&version.id).map(each)
                })),
            Record::AgentVersion(version) => questions
                .push(Question::new(format!("version {}", version.id), move |s| {
                    s.agents().version(&version.id).map(each)
                })),
            Record::Account(record) => {
                let account = record.account.clone();
                questions.push(Question::new(format!("usage of {account}"), move |s| {
                    let usage = s.budgets().usage(&account, at(31))?;
                    // An account that is not there has used nothing.
                    Ok(each((usage != Usage::default()).then_some(usage)))
                }));
                let account = record.account;
                questions.push(Question::new(format!("holds of {account}"), move |s| {
                    s.budgets().reservations(&account, at(31)).map(each)
                }));
            }
            Record::Run(run) => of_run(&mut questions, &run),
            Record::Checkpoint(record) => {
                let run = record.checkpoint.run.clone();
                questions.push(Question::new(format!("checkpoint of {run}"), move |s| {
                    s.checkpoints().load(&run).map(each)
                }));
            }
            _ => {}
        }
    }
    questions.extend(lists());
    questions
}

fn of_definition<D: Definition>(
    questions: &mut Vec<Question>,
    catalog: fn(&dyn Seams) -> &dyn Catalog<D>,
    doc: &D,
) {
    let name = format!("{} {}", D::KIND.entity(), doc.id().as_ref());
    let (id, owner, title) = (doc.id().clone(), doc.owner().clone(), doc.name().clone());
    let ask = |what: &str, ask: fn(&dyn Catalog<D>, &D::Id) -> Result<Answer>| {
        let id = id.clone();
        Question::new(format!("{what} {name}"), move |s| ask(catalog(s), &id))
    };
    let latest = ask("the latest version of", |catalog, id| catalog.latest(id).map(each));
    questions.push(ask("the", |catalog, id| catalog.get(id).map(each)));
    questions.push(Question { is_first_of_next: true, ..latest });
    questions.push(ask("the versions of", |catalog, id| page(catalog.versions(id, &whole()))));
    questions.push(Question::new(format!("by its name {name}"), move |s| {
        catalog(s).by_name(&owner, &title).map(each)
    }));
}

fn of_run(questions: &mut Vec<Question>, run: &store::Run) {
    let mut ask = |what: &str, ask: fn(&dyn AuditStore, &store::RunId) -> Result<Answer>| {
        let id = run.id.clone();
        questions.push(Question::new(format!("{what} {id}"), move |s| ask(s.audit(), &id)));
    };
    ask("run", |audit, id| audit.run(id).map(each));
    ask("events of", |audit, id| page(audit.events(id, &whole())));
    ask("children of", |audit, id| page(audit.children(id, &whole())));
    // A run that is not found has none: when its key is damaged, that is as much as a read can tell.
    ask("ancestors of", |audit, id| match audit.ancestors(id) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Answer::new()),
        other => other.map(each),
    });
}

fn lists() -> Vec<Question> {
    let late = at(1_000_000);
    vec![
        Question::new("all skills", |s| page(s.skills().list(&Default::default(), &whole()))),
        Question::new("all agents", |s| page(s.agents().list(&Default::default(), &whole()))),
        Question::new("due skills", move |s| page(s.skills().due(late, &whole()))),
        Question::new("due agents", move |s| page(s.agents().due(late, &whole()))),
        Question::new("agents of a channel", |s| page(s.agents().by_channel(&id("c"), &whole()))),
        Question::new("all accounts", |s| page(s.budgets().accounts(at(31), &whole()))),
        Question::new("all runs", |s| page(s.audit().runs(&RunFilter::default(), &whole()))),
        Question::new("interrupted runs", |s| page(s.checkpoints().interrupted(&whole()))),
        Question {
            is_sum: true,
            ..Question::new("runs, summed up", |s| {
                page(s.audit().summary(&RunFilter::default(), GroupBy::Status, &whole()))
            })
        },
    ]
}
