//! The sample collection that the example host uses is read without a word.

use std::path::Path;

use store_files::{Kind, read_agents, read_skills, walk};

#[test]
fn sample_collection() {
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("../store/examples/sample");
    let skills = read_skills(sample.join("skills"));
    assert_eq!((skills.refused, skills.skipped), (vec![], vec![]));
    assert_eq!(skills.files.len(), 8);
    for skill in &skills.files {
        assert_eq!(skill.warnings, [], "{}", skill.name);
        assert_eq!(skill.metadata["handler"], skill.name);
        assert!(skill.metadata.values().all(serde_json::Value::is_string), "{}", skill.name);
    }
    let agents = read_agents(sample.join("agents"));
    assert_eq!((agents.refused, agents.skipped), (vec![], vec![]));
    assert_eq!(
        agents.files.iter().map(|a| a.name.as_str()).collect::<Vec<_>>(),
        ["auditor", "editor", "librarian"]
    );
    for agent in &agents.files {
        assert_eq!(agent.warnings, [], "{}", agent.name);
        for name in &agent.skills {
            assert!(skills.files.iter().any(|s| s.name == *name), "{} names {name}", agent.name);
        }
    }
    assert_eq!(walk(sample.join("docs"), Kind::Agents).files.len(), 7);
}
