//! Deletion works for objects with references, and does not affect other organisations.

use std::collections::{BTreeMap, BTreeSet};

use waypost_store::{Conn, Db, Dialect, end_user, organization, server, user, walkthrough};

use crate::fixture::{Fixture, execute};
use crate::open;
use crate::schema::{self, rows};

/// Returns the columns that contain `id`, except those of the audit log and of the organisations' last changes, which
/// outlive their organisation.
async fn find_references(conn: &mut Conn, id: &str) -> BTreeSet<String> {
    let mut references = BTreeSet::new();
    for (name, table) in schema::read(conn).await {
        for column in table.columns.iter().filter(|(_, (kind, _))| kind == "TEXT").map(|(column, _)| column) {
            let sql = format!("SELECT CAST(count(*) AS TEXT) FROM {name} WHERE {column} = '{id}'");
            let [count] = rows::<1>(conn, sql).await.pop().unwrap();
            let is_kept = ["audit_events", "organization_changes"].contains(&name.as_str());
            if !is_kept && count.as_deref() != Some("0") {
                references.insert(format!("{name}.{column}"));
            }
        }
    }
    references
}

/// Returns all rows that contain `mark` as strings, by table.
async fn contents(conn: &mut Conn, mark: &str) -> BTreeMap<String, Vec<String>> {
    let mut all = BTreeMap::new();
    for (name, table) in schema::read(conn).await {
        // These tables do not reference an organisation.
        if ["config_version", "job_leases", "sign_in_attempts"].contains(&name.as_str()) {
            continue;
        }
        let columns: Vec<_> =
            table.columns.keys().map(|column| format!("coalesce(CAST({column} AS TEXT), 'null')")).collect();
        let sql = format!("SELECT {} FROM {name}", columns.join(" || '|' || "));
        let mut lines: Vec<String> = rows::<1>(conn, sql).await.into_iter().filter_map(|[line]| line).collect();
        lines.retain(|line| line.contains(mark));
        lines.sort();
        assert!(!lines.is_empty(), "the fixture has no rows in {name}");
        all.insert(name, lines);
    }
    all
}

async fn check_foreign_keys(conn: &mut Conn) {
    // PostgreSQL has checked foreign keys at commit.
    if conn.dialect() == Dialect::Sqlite {
        let sql = "SELECT \"table\" FROM pragma_foreign_key_check".to_owned();
        assert_eq!(rows::<1>(conn, sql).await, Vec::<[Option<String>; 1]>::new());
    }
}

struct Fixtures {
    db: Db,
    one: Fixture,
    two: Fixture,
    before: BTreeMap<String, Vec<String>>,
}

async fn fixtures(url: &str) -> Fixtures {
    let db = open(url).await;
    let (one, two) = (Fixture::new(1), Fixture::new(2));
    one.seed_with_activity(&db).await;
    two.seed_with_activity(&db).await;
    let before = contents(&mut db.read().await.unwrap(), "_2").await;
    Fixtures { db, one, two, before }
}

impl Fixtures {
    async fn assert_other_is_unchanged(&self) {
        let mut conn = self.db.read().await.unwrap();
        assert_eq!(contents(&mut conn, "_2").await, self.before);
        check_foreign_keys(&mut conn).await;
    }
}

async fn a_server_is_deleted(fixtures: Fixtures) {
    let Fixtures { db, one, two, .. } = &fixtures;
    let mut tx = db.begin().await.unwrap();
    assert!(!server::delete(&mut tx, &one.organization, &two.server).await.unwrap(), "another organisation's");
    assert!(server::delete(&mut tx, &one.organization, &one.server).await.unwrap());
    assert!(!server::delete(&mut tx, &one.organization, &one.server).await.unwrap(), "already deleted");
    tx.commit().await.unwrap();
    assert_eq!(find_references(&mut db.read().await.unwrap(), one.server.as_str()).await, BTreeSet::new());
    fixtures.assert_other_is_unchanged().await;
}

async fn an_end_user_is_deleted(fixtures: Fixtures) {
    let Fixtures { db, one, two, .. } = &fixtures;
    let mut tx = db.begin().await.unwrap();
    assert!(!end_user::delete(&mut tx, &one.organization, &two.end_user).await.unwrap(), "another organisation's");
    assert!(end_user::delete(&mut tx, &one.organization, &one.end_user).await.unwrap());
    tx.commit().await.unwrap();
    let mut conn = db.read().await.unwrap();
    // The account, the email code and the identity are deleted as well.
    for id in [one.end_user.as_str(), one.progress.as_str(), "acc_1", "ecd_1", "idn_1", "ogr_1", "joi_1"] {
        assert_eq!(find_references(&mut conn, id).await, BTreeSet::new());
    }
    // The ID must not remain inside strings, such as JSON.
    for (name, table) in schema::read(&mut conn).await {
        for column in table.columns.iter().filter(|(_, (kind, _))| kind == "TEXT").map(|(column, _)| column) {
            let sql = format!("SELECT CAST(count(*) AS TEXT) FROM {name} WHERE {column} LIKE '%{}%'", one.end_user);
            let [count] = rows::<1>(&mut conn, sql).await.pop().unwrap();
            assert_eq!(count.as_deref(), Some("0"), "{name}.{column}");
        }
    }
    drop(conn);
    fixtures.assert_other_is_unchanged().await;
}

async fn a_walkthrough_is_deleted(fixtures: Fixtures) {
    let Fixtures { db, one, two, .. } = &fixtures;
    let mut tx = db.begin().await.unwrap();
    assert!(
        !walkthrough::delete(&mut tx, &one.organization, &two.walkthrough).await.unwrap(),
        "another organisation's"
    );
    assert!(walkthrough::delete(&mut tx, &one.organization, &one.walkthrough).await.unwrap());
    tx.commit().await.unwrap();
    let mut conn = db.read().await.unwrap();
    for id in [one.walkthrough.as_str(), one.version.as_str(), one.step(1).as_str(), one.progress.as_str()] {
        assert_eq!(find_references(&mut conn, id).await, BTreeSet::new());
    }
    drop(conn);
    fixtures.assert_other_is_unchanged().await;
}

/// A step is deleted from the draft; versions and progress keep it.
async fn a_step_is_deleted(fixtures: Fixtures) {
    let Fixtures { db, one, .. } = &fixtures;
    let (first, second) = (one.step(0), one.step(1));
    let mut tx = db.begin().await.unwrap();
    // The row is deleted first: the chain is checked at commit, so the order of the statements does not matter.
    let sql = format!(
        "DELETE FROM steps WHERE id = '{first}'; UPDATE walkthroughs SET first_step_id = '{second}' WHERE id = '{}'",
        one.walkthrough
    );
    execute(&mut tx, sql).await;
    tx.commit().await.unwrap();
    let kept = ["step_completions.step_id", "version_steps.step_id", "walkthrough_events.step_id"];
    let columns = find_references(&mut db.read().await.unwrap(), first.as_str()).await;
    assert_eq!(columns, kept.map(str::to_owned).into());
    fixtures.assert_other_is_unchanged().await;
}

async fn a_step_that_is_linked_cannot_be_deleted(fixtures: Fixtures) {
    let Fixtures { db, one, .. } = &fixtures;
    let mut tx = db.begin().await.unwrap();
    execute(&mut tx, format!("DELETE FROM steps WHERE id = '{}'", one.step(3))).await;
    assert!(tx.commit().await.unwrap_err().is_foreign_key_violation());
    assert!(!find_references(&mut db.read().await.unwrap(), one.step(3).as_str()).await.is_empty());
    fixtures.assert_other_is_unchanged().await;
}

async fn an_organisation_is_deleted(fixtures: Fixtures) {
    let Fixtures { db, one, two, .. } = &fixtures;
    let mut tx = db.begin().await.unwrap();
    assert!(organization::delete(&mut tx, &one.organization).await.unwrap());
    assert!(user::delete_without_membership(&mut tx, &one.user).await.unwrap());
    assert!(!user::delete_without_membership(&mut tx, &two.user).await.unwrap(), "a member of the other organisation");
    tx.commit().await.unwrap();
    let mut conn = db.read().await.unwrap();
    let ids = [one.organization.as_str(), one.user.as_str(), one.server.as_str(), one.walkthrough.as_str()];
    for id in ids.into_iter().chain([one.version.as_str(), one.end_user.as_str(), one.progress.as_str()]) {
        assert_eq!(find_references(&mut conn, id).await, BTreeSet::new());
    }
    let log = format!("SELECT id FROM audit_events WHERE organization_id = '{}'", one.organization);
    assert_eq!(rows::<1>(&mut conn, log).await.len(), 1, "the audit log is kept");
    drop(conn);
    fixtures.assert_other_is_unchanged().await;
}

waypost_testkit::both!(fixtures =>
    a_server_is_deleted,
    an_end_user_is_deleted,
    a_walkthrough_is_deleted,
    a_step_is_deleted,
    a_step_that_is_linked_cannot_be_deleted,
    an_organisation_is_deleted,
);
