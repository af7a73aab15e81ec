//! Everything that can be asked of a store, through every seam, as a list of questions.

use std::fmt::Debug;

use contract_tests::fixture::{at, id};
use store::{
    Agent, AuditStore, Catalog, Definition, DefinitionFilter, ErrorKind, GroupBy, Page, PageRequest, Record,
    Result, RunFilter, Seams, Skill, Store, Usage, page,
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

/// How many items the pages have in which lists are read: few, so that most lists have more than one.
const PAGE: usize = 11;

/// No list of any store here is as long.
const ENDLESS: usize = 10_000;

/// A whole list, read page after page. One that does not end has more items than there are.
fn list<T: Debug>(fetch: impl FnMut(&PageRequest) -> Result<Page<T>>) -> Result<Answer> {
    let items: Vec<T> = page::all(PAGE, fetch).take(ENDLESS).collect::<Result<_>>()?;
    Ok(each(items))
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
    questions.push(ask("the versions of", |catalog, id| list(|page| catalog.versions(id, page))));
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
    ask("events of", |audit, id| list(|page| audit.events(id, page)));
    ask("children of", |audit, id| list(|page| audit.children(id, page)));
    // A run that is not found has none: when its key is damaged, that is as much as a read can tell.
    ask("ancestors of", |audit, id| match audit.ancestors(id) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Answer::new()),
        other => other.map(each),
    });
}

fn lists() -> Vec<Question> {
    let late = at(1_000_000);
    vec![
        Question::new("all skills", |s| list(|page| s.skills().list(&Default::default(), page))),
        Question::new("skills with a tag", |s| {
            let filter = DefinitionFilter { tag: Some(id("tag")), ..Default::default() };
            list(|page| s.skills().list(&filter, page))
        }),
        Question::new("the runs of a skill", |s| {
            let filter = RunFilter { skill: Some(id("n0000")), ..RunFilter::default() };
            list(|page| s.audit().runs(&filter, page))
        }),
        Question::new("all agents", |s| list(|page| s.agents().list(&Default::default(), page))),
        Question::new("due skills", move |s| list(|page| s.skills().due(late, page))),
        Question::new("due agents", move |s| list(|page| s.agents().due(late, page))),
        Question::new("agents of a channel", |s| list(|page| s.agents().by_channel(&id("c"), page))),
        Question::new("all accounts", |s| list(|page| s.budgets().accounts(at(31), page))),
        Question::new("all runs", |s| list(|page| s.audit().runs(&RunFilter::default(), page))),
        Question::new("interrupted runs", |s| list(|page| s.checkpoints().interrupted(page))),
        Question {
            is_sum: true,
            ..Question::new("runs, summed up", |s| {
                list(|page| s.audit().summary(&RunFilter::default(), GroupBy::Status, page))
            })
        },
    ]
}
