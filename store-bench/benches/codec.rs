//! What a document of 2 KB costs on its way in and out: to read beside an operation, which takes 100 µs and more where
//! it waits for a disk, and 5 µs and more where it reads and decodes such a document.

#![allow(clippy::unwrap_used)] // its own data are sound

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use store_api::json::{Checksum, decode, encode};
use store_api::{Definition, Name, PrincipalId, Schedule, Skill, SkillId, Tag, time};

fn main() {
    divan::main();
}

fn skill() -> Skill {
    let (id, owner) = (SkillId::new("skill-00000001").unwrap(), PrincipalId::new("ana@example.org").unwrap());
    let mut skill = Skill::new(id, owner, Name::new("weekly report").unwrap());
    skill.tags = ["reports", "weekly"].map(|tag| Tag::new(tag).unwrap()).into();
    skill.tools = ["read_file", "list_issues", "post_message"].map(str::to_owned).into();
    skill.schedule = Some(Schedule::new("0 7 * * 1", "Europe/Berlin", Some(time::from_nanos(1))));
    skill.body = "Group the open issues by label.\nNever close one.\n".chars().cycle().take(1_600).collect();
    skill
}

fn text() -> String {
    encode(&skill()).unwrap()
}

#[divan::bench]
fn encoded(bencher: Bencher<'_, '_>) {
    let skill = skill();
    bencher.counter(BytesCount::new(text().len())).bench(|| encode(black_box(&skill)));
}

#[divan::bench]
fn decoded(bencher: Bencher<'_, '_>) {
    let text = text();
    let what = || "skill".to_owned();
    bencher.counter(BytesCount::new(text.len())).bench(|| decode::<Skill>(what, black_box(&text)));
}

#[divan::bench]
fn checked(bencher: Bencher<'_, '_>) {
    let skill = skill();
    bencher.bench(|| black_box(&skill).validate());
}

#[divan::bench(args = [300, 2_048, 16_384, 262_144])]
fn checksummed(bencher: Bencher<'_, '_>, bytes: usize) {
    let document = vec![b'x'; bytes];
    let sum = || {
        let key = Checksum::default().and(b"definitions.doc").and(&[1]).and(b"skill-00000001");
        key.and(&7_i64.to_le_bytes()).and(black_box(&document)).get()
    };
    bencher.counter(BytesCount::new(bytes)).bench(sum);
}
