//! Walkthroughs, their draft steps and their versions.

use serde_json::json;
use waypost_core::Timestamp;
use waypost_core::chain::{self, LinkUpdate};
use waypost_core::id::{OrganizationId, StepId, VersionId, WalkthroughId};
use waypost_core::organization::Organization;
use waypost_core::step::{Step, StepContent};
use waypost_core::version::{VersionInfo, Withdrawal};
use waypost_core::walkthrough::{Walkthrough, WalkthroughSort, WalkthroughState, WalkthroughType};
use waypost_store::walkthrough::{
    count, delete, find, find_by_slug, find_by_title, find_for_update, insert, list_slugs_with_prefix, lock_names,
    update,
};
use waypost_store::walkthrough_list::{SortValue, WalkthroughSearch, search};
use waypost_store::{Db, Dialect, Error, Tx, on, organization, step, version};

use crate::open;

fn org(n: u8) -> OrganizationId {
    OrganizationId::from_store(format!("org_{n}"))
}

fn new_walkthrough(n: u8, organization_id: OrganizationId) -> Walkthrough {
    Walkthrough {
        id: WalkthroughId::from_store(format!("wt_{n}_{organization_id}")),
        organization_id,
        title: format!("Title {n}"),
        slug: format!("title-{n}"),
        description: "What it is".to_owned(),
        kind: WalkthroughType::Installer,
        state: WalkthroughState::Draft,
        estimated_duration_minutes: Some(u32::from(n)),
        tags: vec!["a".to_owned(), "ü\"".to_owned()],
        metadata: json!({ "z": 1, "a": { "deep": [null, true] }, "nul": "\u{0}" }).as_object().unwrap().clone(),
        first_step_id: None,
        current_version_id: None,
        revision: 1,
        published_revision: None,
        next_ordinal: 0,
        created_at: Timestamp(1_000),
        updated_at: Timestamp(2_000),
    }
}

fn new_step(n: u8, next: Option<u8>) -> Step {
    let id = |n: u8| StepId::from_store(format!("ws_{n}"));
    let content = StepContent {
        title: format!("Step {n}"),
        section_title: n.is_multiple_of(2).then(|| "Section".to_owned()),
        content: "Do *it* \\ \"now\" 🚀".to_owned(),
        introduction_for_agent: Some("Hello".to_owned()),
        context_for_agent: None,
        operations_for_agent: Some(String::new()),
        metadata: json!({ "n": n }).as_object().unwrap().clone(),
    };
    Step { id: id(n), ordinal: u32::from(n), key: Some(format!("key-{n}")), next_step_id: next.map(id), content }
}

/// A transaction in a database with two organisations and one walkthrough of the first.
async fn begin(db: &Db) -> (Tx, Walkthrough) {
    let mut tx = db.begin().await.unwrap();
    for n in [1, 2] {
        let (slug, name) = (format!("org-{n}"), "Org".to_owned());
        let new = Organization {
            id: org(n),
            slug,
            name,
            toolboxes_enabled: true,
            gateway_enabled: true,
            created_at: Timestamp(0),
        };
        organization::insert(&mut tx, &new).await.unwrap();
    }
    let first = new_walkthrough(1, org(1));
    insert(&mut tx, &first, "title 1").await.unwrap();
    (tx, first)
}

async fn walkthroughs_are_read_as_written(db: Db) {
    let (mut tx, first) = begin(&db).await;
    assert_eq!(find(&mut tx, &org(1), &first.id).await.unwrap().as_ref(), Some(&first));
    assert_eq!(find_for_update(&mut tx, &org(1), &first.id).await.unwrap().as_ref(), Some(&first));
    assert_eq!(find_by_slug(&mut tx, &org(1), "title-1").await.unwrap().as_ref(), Some(&first));
    assert_eq!(find_by_title(&mut tx, &org(1), "title 1").await.unwrap().as_ref(), Some(&first));

    let changed = Walkthrough {
        title: "New".to_owned(),
        slug: "new".to_owned(),
        description: String::new(),
        kind: WalkthroughType::Course,
        state: WalkthroughState::Archived,
        estimated_duration_minutes: None,
        tags: Vec::new(),
        metadata: serde_json::Map::new(),
        revision: 2,
        published_revision: None,
        next_ordinal: 7,
        updated_at: Timestamp(3_000),
        ..first.clone()
    };
    assert!(update(&mut tx, &changed, "new").await.unwrap());
    assert_eq!(find(&mut tx, &org(1), &first.id).await.unwrap().as_ref(), Some(&changed));
    assert_eq!(find_by_title(&mut tx, &org(1), "title 1").await.unwrap(), None);
    assert!(delete(&mut tx, &org(1), &first.id).await.unwrap());
    assert!(!delete(&mut tx, &org(1), &first.id).await.unwrap() && !update(&mut tx, &changed, "new").await.unwrap());
    tx.commit().await.unwrap();
}

async fn another_organisation_finds_nothing(db: Db) {
    let (mut tx, mut first) = begin(&db).await;
    step::insert(&mut tx, &org(1), &first.id, [&new_step(0, None)]).await.unwrap();
    let version = version_of(&first, 1);
    version::insert(&mut tx, &org(1), &version, &[new_step(0, None)]).await.unwrap();
    let (other, id) = (org(2), first.id.clone());
    assert_eq!(find(&mut tx, &other, &id).await.unwrap(), None);
    assert_eq!(find_for_update(&mut tx, &other, &id).await.unwrap(), None);
    assert_eq!(find_by_slug(&mut tx, &other, "title-1").await.unwrap(), None);
    assert_eq!(find_by_title(&mut tx, &other, "title 1").await.unwrap(), None);
    assert_eq!(count(&mut tx, &other).await.unwrap(), 0);
    assert!(!delete(&mut tx, &other, &id).await.unwrap());
    assert!(step::list(&mut tx, &other, &id).await.unwrap().is_empty());
    assert!(step::list_links(&mut tx, &other, &id).await.unwrap().is_empty());
    assert!(step::list_outline(&mut tx, &other, &id).await.unwrap().is_empty());
    assert_eq!(step::find_by_key(&mut tx, &other, &id, "key-0").await.unwrap(), None);
    assert_eq!(step::find(&mut tx, &other, &id, &new_step(0, None).id).await.unwrap(), None);
    assert!(version::find_with_steps(&mut tx, &other, &version.id).await.unwrap().is_none());
    assert_eq!(version::find(&mut tx, &other, &version.id).await.unwrap(), None);
    assert_eq!(version::find_by_number(&mut tx, &other, &id, 1).await.unwrap(), None);
    assert_eq!(version::find_newest(&mut tx, &other, &id).await.unwrap(), None);
    assert_eq!(version::max_number(&mut tx, &other, &id).await.unwrap(), 0);
    assert!(version::list(&mut tx, &other, &id).await.unwrap().is_empty());

    // Updates from another organisation change nothing.
    let changed = Step { key: None, ..new_step(0, None) };
    step::update(&mut tx, &other, &id, [&changed]).await.unwrap();
    step::relink(&mut tx, &other, &id, &[LinkUpdate { from: Some(changed.id.clone()), to: Some(changed.id.clone()) }])
        .await
        .unwrap();
    step::delete(&mut tx, &other, &id, [&changed.id]).await.unwrap();
    assert_eq!(step::list(&mut tx, &org(1), &id).await.unwrap(), [new_step(0, None)]);
    let withdrawal = Withdrawal { at: Timestamp(1), reason: "x".to_owned() };
    assert!(!version::withdraw(&mut tx, &other, &version.id, &withdrawal).await.unwrap());
    first.organization_id = other;
    assert!(!update(&mut tx, &first, "title 1").await.unwrap());
    assert!(lock_names(&mut tx, &org(1)).await.unwrap() && !lock_names(&mut tx, &org(3)).await.unwrap());
}

async fn titles_and_slugs_are_unique_in_an_organisation(db: Db) {
    let (tx, _) = begin(&db).await;
    tx.commit().await.unwrap();
    for (title, slug, organization, taken) in
        [("title 1", "other", 1, true), ("other", "title-1", 1, true), ("title 1", "title-1", 2, false)]
    {
        let mut tx = db.begin().await.unwrap();
        let new = Walkthrough { slug: slug.to_owned(), ..new_walkthrough(9, org(organization)) };
        let result = insert(&mut tx, &new, title).await;
        assert_eq!(result.as_ref().is_err_and(Error::is_unique_violation), taken, "{result:?}");
    }
}

fn by_title() -> WalkthroughSearch<'static> {
    WalkthroughSearch {
        title: "",
        plain: "",
        state: None,
        kind: None,
        server: None,
        sort: WalkthroughSort::Title,
        descending: false,
        after: None,
        limit: 10,
    }
}

async fn titles(tx: &mut Tx, search_query: WalkthroughSearch<'_>) -> Vec<String> {
    search(tx, &org(1), &search_query).await.unwrap().into_iter().map(|row| row.walkthrough.title).collect()
}

async fn ordinals_of_deleted_steps_are_stored(db: Db) {
    let (mut tx, walkthrough) = begin(&db).await;
    let (id, removed) = (&walkthrough.id, new_step(4, None));
    step::insert(&mut tx, &org(1), id, [&removed]).await.unwrap();
    assert_eq!(step::consume_removed(&mut tx, &org(1), id, &removed.id).await.unwrap(), None);
    step::delete(&mut tx, &org(1), id, [&removed.id]).await.unwrap();
    assert_eq!(step::consume_removed(&mut tx, &org(2), id, &removed.id).await.unwrap(), None);
    let other = WalkthroughId::from_store("wt_other".to_owned());
    assert_eq!(step::consume_removed(&mut tx, &org(1), &other, &removed.id).await.unwrap(), None);
    assert_eq!(step::consume_removed(&mut tx, &org(1), id, &removed.id).await.unwrap(), Some(removed.ordinal));
    assert_eq!(step::consume_removed(&mut tx, &org(1), id, &removed.id).await.unwrap(), None);
}

async fn walkthroughs_are_listed_by_title_in_byte_order(db: Db) {
    let (mut tx, _) = begin(&db).await;
    for (n, key) in [(2, "b"), (3, "a-b"), (4, "ab"), (5, "ä"), (6, "a b")] {
        let state = if n == 2 { WalkthroughState::Published } else { WalkthroughState::Draft };
        let new = Walkthrough { title: key.to_owned(), state, ..new_walkthrough(n, org(1)) };
        insert(&mut tx, &new, key).await.unwrap();
    }
    let all = ["a b", "a-b", "ab", "b", "Title 1", "ä"];
    assert_eq!(titles(&mut tx, by_title()).await, all);
    let mut backwards = all;
    backwards.reverse();
    assert_eq!(titles(&mut tx, WalkthroughSearch { descending: true, ..by_title() }).await, backwards);
    let last = new_walkthrough(3, org(1)).id;
    let after = WalkthroughSearch { after: Some((SortValue::Title("a-b".to_owned()), &last)), limit: 2, ..by_title() };
    assert_eq!(titles(&mut tx, after).await, ["ab", "b"]);
    let published = WalkthroughSearch { state: Some(WalkthroughState::Published), ..by_title() };
    assert_eq!(titles(&mut tx, published).await, ["b"]);
    let other_type = WalkthroughSearch { kind: Some(WalkthroughType::Course), ..by_title() };
    assert!(titles(&mut tx, other_type).await.is_empty());
    assert_eq!(titles(&mut tx, WalkthroughSearch { title: "ä", plain: "ä", ..by_title() }).await, ["ä"]);
    assert_eq!(titles(&mut tx, WalkthroughSearch { title: "-5", plain: "-5", ..by_title() }).await, ["ä"], "by slug");
    assert_eq!(
        titles(&mut tx, WalkthroughSearch { title: "%", plain: "%", ..by_title() }).await,
        [""; 0],
        "not a pattern"
    );
    assert_eq!(count(&mut tx, &org(1)).await.unwrap(), 6);
    let mut slugs = list_slugs_with_prefix(&mut tx, &org(1), "title").await.unwrap();
    slugs.sort();
    assert_eq!(slugs, ["title-1", "title-2", "title-3", "title-4", "title-5", "title-6"]);
    assert_eq!(list_slugs_with_prefix(&mut tx, &org(1), "title-2").await.unwrap(), ["title-2"]);
    assert!(list_slugs_with_prefix(&mut tx, &org(1), "t_tle").await.unwrap().is_empty());
}

async fn steps_are_read_as_written(db: Db) {
    let (mut tx, mut walkthrough) = begin(&db).await;
    let id = walkthrough.id.clone();
    let steps = [new_step(0, Some(1)), new_step(1, Some(2)), new_step(2, None)];
    step::insert(&mut tx, &org(1), &id, &steps).await.unwrap();
    walkthrough.first_step_id = Some(steps[0].id.clone());
    update(&mut tx, &walkthrough, "title 1").await.unwrap();
    assert_eq!(step::list(&mut tx, &org(1), &id).await.unwrap(), steps);
    assert_eq!(step::find(&mut tx, &org(1), &id, &steps[1].id).await.unwrap().as_ref(), Some(&steps[1]));
    let links = step::list_links(&mut tx, &org(1), &id).await.unwrap();
    let ordered = chain::order(walkthrough.first_step_id.as_ref(), links).unwrap();
    let link = |step: &Step| chain::Link { id: step.id.clone(), next_step_id: step.next_step_id.clone() };
    assert_eq!(ordered, steps.iter().map(link).collect::<Vec<_>>());
    let outline = step::list_outline(&mut tx, &org(1), &id).await.unwrap();
    let bare = |step: &Step| {
        let StepContent { title, section_title, .. } = step.content.clone();
        Step { content: StepContent { title, section_title, ..StepContent::default() }, ..step.clone() }
    };
    assert_eq!(outline, steps.iter().map(bare).collect::<Vec<_>>());
    let found = step::find_by_key(&mut tx, &org(1), &id, "key-1").await.unwrap();
    assert_eq!(found, Some((steps[1].id.clone(), "Step 1".to_owned())));
    assert_eq!(step::find_by_key(&mut tx, &org(1), &id, "key-9").await.unwrap(), None);

    // Two steps swap their keys. Ordinals and links are not updated.
    let swapped = [
        Step { key: steps[1].key.clone(), ordinal: 99, next_step_id: None, ..steps[0].clone() },
        Step { key: steps[0].key.clone(), content: new_step(7, None).content, ..steps[1].clone() },
    ];
    step::update(&mut tx, &org(1), &id, &swapped).await.unwrap();
    let stored = step::list(&mut tx, &org(1), &id).await.unwrap();
    assert_eq!(
        (stored[0].key.as_deref(), stored[0].ordinal, &stored[0].next_step_id),
        (Some("key-1"), 0, &steps[0].next_step_id)
    );
    assert_eq!((stored[1].key.as_deref(), stored[1].content.title.as_str()), (Some("key-0"), "Step 7"));
    assert_eq!(stored[2], steps[2]);

    // Moves the last step to the front and deletes the second step.
    let ids = |steps: &[Step]| steps.iter().map(|step| step.id.clone()).collect::<Vec<_>>();
    let (links, _) = chain::relocate(&ids(&stored), &steps[2].id, &chain::StepPosition::First).unwrap();
    step::relink(&mut tx, &org(1), &id, &links).await.unwrap();
    walkthrough.first_step_id = Some(steps[2].id.clone());
    update(&mut tx, &walkthrough, "title 1").await.unwrap();
    let moved =
        chain::order(walkthrough.first_step_id.as_ref(), step::list(&mut tx, &org(1), &id).await.unwrap()).unwrap();
    assert_eq!(moved.iter().map(|step| step.ordinal).collect::<Vec<_>>(), [2, 0, 1]);
    step::relink(&mut tx, &org(1), &id, &chain::remove(&ids(&moved), &steps[1].id).unwrap()).await.unwrap();
    step::delete(&mut tx, &org(1), &id, [&steps[1].id]).await.unwrap();
    tx.commit().await.unwrap();
    let mut conn = db.read().await.unwrap();
    let left =
        chain::order(walkthrough.first_step_id.as_ref(), step::list(&mut conn, &org(1), &id).await.unwrap()).unwrap();
    assert_eq!(left.iter().map(|step| step.ordinal).collect::<Vec<_>>(), [2, 0]);
}

async fn a_broken_chain_cannot_be_committed(db: Db) {
    let (mut tx, walkthrough) = begin(&db).await;
    step::insert(&mut tx, &org(1), &walkthrough.id, [&new_step(0, Some(1)), &new_step(1, None)]).await.unwrap();
    tx.commit().await.unwrap();
    let mut tx = db.begin().await.unwrap();
    step::delete(&mut tx, &org(1), &walkthrough.id, [&new_step(1, None).id]).await.unwrap();
    let error = tx.commit().await.unwrap_err();
    assert!(error.is_foreign_key_violation(), "{error}");
    let mut tx = db.begin().await.unwrap();
    let twice = Step { id: StepId::from_store("ws_9".to_owned()), ..new_step(1, None) };
    let error = step::insert(&mut tx, &org(1), &walkthrough.id, [&twice]).await.unwrap_err();
    assert!(error.is_unique_violation(), "ordinals are unique: {error}");
}

fn version_of(walkthrough: &Walkthrough, number: u32) -> VersionInfo {
    VersionInfo {
        id: VersionId::from_store(format!("wv_{number}")),
        walkthrough_id: walkthrough.id.clone(),
        number,
        fields: walkthrough.fields(),
        step_count: 1,
        created_at: Timestamp(i64::from(number)),
        withdrawal: None,
    }
}

async fn versions_are_read_as_written(db: Db) {
    let (mut tx, walkthrough) = begin(&db).await;
    let id = &walkthrough.id;
    assert_eq!(version::max_number(&mut tx, &org(1), id).await.unwrap(), 0);
    assert_eq!(version::find_newest(&mut tx, &org(1), id).await.unwrap(), None);
    let steps = [new_step(3, None), new_step(1, None), new_step(2, None)];
    let first = VersionInfo { step_count: 3, ..version_of(&walkthrough, 1) };
    version::insert(&mut tx, &org(1), &first, &steps).await.unwrap();
    let second = version_of(&walkthrough, 2);
    version::insert(&mut tx, &org(1), &second, &steps[..1]).await.unwrap();

    let loaded = version::find_with_steps(&mut tx, &org(1), &first.id).await.unwrap().unwrap();
    assert_eq!((&loaded.id, &loaded.walkthrough_id, loaded.number), (&first.id, id, 1));
    assert_eq!((loaded.title.as_str(), loaded.steps.len()), ("Title 1", 3));
    for (version, step) in loaded.steps.iter().zip(&steps) {
        assert_eq!((&version.id, version.ordinal, &version.content), (&step.id, step.ordinal, &step.content));
    }
    assert_eq!(version::find(&mut tx, &org(1), &first.id).await.unwrap().as_ref(), Some(&first));
    assert_eq!(version::find_by_number(&mut tx, &org(1), id, 2).await.unwrap().as_ref(), Some(&second));
    assert_eq!(version::list(&mut tx, &org(1), id).await.unwrap(), [second.clone(), first.clone()]);
    assert_eq!(version::find_newest(&mut tx, &org(1), id).await.unwrap().as_ref(), Some(&second));

    let withdrawal = Withdrawal { at: Timestamp(9), reason: "Wrong".to_owned() };
    assert!(version::withdraw(&mut tx, &org(1), &second.id, &withdrawal).await.unwrap());
    let again = Withdrawal { at: Timestamp(10), reason: "Other".to_owned() };
    assert!(!version::withdraw(&mut tx, &org(1), &second.id, &again).await.unwrap());
    let version = version::find(&mut tx, &org(1), &second.id).await.unwrap().unwrap();
    assert_eq!(version, VersionInfo { withdrawal: Some(withdrawal), ..second.clone() });
    assert_eq!(version::find_newest(&mut tx, &org(1), id).await.unwrap().as_ref(), Some(&first));
    assert_eq!(version::max_number(&mut tx, &org(1), id).await.unwrap(), 2);
    assert!(
        version::find_with_steps(&mut tx, &org(1), &second.id).await.unwrap().is_some(),
        "its end users still need it"
    );
    let unknown = VersionId::from_store("wv_9".to_owned());
    assert!(version::find_with_steps(&mut tx, &org(1), &unknown).await.unwrap().is_none());

    let current = Walkthrough { current_version_id: Some(first.id.clone()), ..walkthrough.clone() };
    update(&mut tx, &current, "title 1").await.unwrap();
    assert_eq!(find(&mut tx, &org(1), id).await.unwrap(), Some(current));
    let error = version::insert(&mut tx, &org(1), &first, &steps).await.unwrap_err();
    assert!(error.is_unique_violation(), "{error}");
}

/// The migration fills the sets of versions that were published before it.
async fn the_migration_computes_the_step_sets(db: Db) {
    const BLANK: &str = "UPDATE versions SET step_set = ''";
    const READ: &str = "SELECT step_set FROM versions ORDER BY number";
    let migration = match db.dialect() {
        Dialect::Sqlite => include_str!("../../migrations/sqlite/0010_recording.sql"),
        Dialect::Postgres => include_str!("../../migrations/postgres/0010_recording.sql"),
    };
    let fill = migration.split_once("UPDATE versions").unwrap().1.split_once(';').unwrap().0;
    let fill = sqlx::AssertSqlSafe(format!("UPDATE versions{fill}"));
    let (mut tx, walkthrough) = begin(&db).await;
    let sets: [&[u8]; 4] = [&[3, 1, 2], &[0], &[7, 8, 130], &(0..100).collect::<Vec<_>>()];
    for (number, ordinals) in (1..).zip(sets) {
        let steps: Vec<_> = ordinals.iter().map(|&ordinal| new_step(ordinal, None)).collect();
        let step_count = u32::try_from(steps.len()).unwrap();
        let version = VersionInfo { step_count, ..version_of(&walkthrough, number) };
        version::insert(&mut tx, &org(1), &version, &steps).await.unwrap();
    }
    let stored: Vec<String> = on!(&mut tx, c => sqlx::query_scalar(READ).fetch_all(c).await.unwrap());
    assert_eq!(stored[..2], ["0e", "01"]);
    on!(&mut tx, c => sqlx::query(BLANK).execute(c).await.unwrap().rows_affected());
    on!(&mut tx, c => sqlx::query(fill).execute(c).await.unwrap().rows_affected());
    let filled: Vec<String> = on!(&mut tx, c => sqlx::query_scalar(READ).fetch_all(c).await.unwrap());
    assert_eq!(filled, stored);
}

/// Invalid values in a row are reported as `Error::Corrupt`.
async fn invalid_values_are_reported(db: Db) {
    let (mut tx, walkthrough) = begin(&db).await;
    let id = &walkthrough.id;
    step::insert(&mut tx, &org(1), id, [&new_step(0, None)]).await.unwrap();
    let version = version_of(&walkthrough, 1);
    version::insert(&mut tx, &org(1), &version, &[new_step(0, None)]).await.unwrap();
    tx.commit().await.unwrap();
    let cases = [
        ("walkthroughs", "type = 'dance'"),
        ("walkthroughs", "tags = 'x'"),
        ("walkthroughs", "metadata = '[]'"),
        ("walkthroughs", "revision = -1"),
        ("walkthroughs", "estimated_duration_minutes = -1"),
        ("walkthroughs", "next_ordinal = 5000000000"),
        ("steps", "ordinal = -1"),
        ("steps", "metadata = ''"),
        ("versions", "type = ''"),
        ("versions", "withdrawn_at = 5"),
        ("versions", "step_count = 2"),
        ("version_steps", "metadata = '{'"),
        ("version_steps", "ordinal = -1"),
    ];
    for (table, assignment) in cases {
        let mut tx = db.begin().await.unwrap();
        let sql = format!("UPDATE {table} SET {assignment}");
        on!(&mut tx, c => sqlx::query(sqlx::AssertSqlSafe(sql)).execute(c).await.unwrap().rows_affected());
        let errors = [
            find(&mut tx, &org(1), id).await.err(),
            step::list(&mut tx, &org(1), id).await.err(),
            version::list(&mut tx, &org(1), id).await.err(),
            version::find_with_steps(&mut tx, &org(1), &version.id).await.err(),
        ];
        let mut corrupt = errors.iter().flatten();
        assert!(matches!(corrupt.next(), Some(Error::Corrupt { .. })), "{table} {assignment}: {errors:?}");
        assert!(corrupt.next().is_none(), "{table} {assignment}: {errors:?}");
    }
}

waypost_testkit::both!(open =>
    walkthroughs_are_read_as_written,
    another_organisation_finds_nothing,
    titles_and_slugs_are_unique_in_an_organisation,
    walkthroughs_are_listed_by_title_in_byte_order, ordinals_of_deleted_steps_are_stored,
    steps_are_read_as_written,
    a_broken_chain_cannot_be_committed,
    versions_are_read_as_written,
    the_migration_computes_the_step_sets,
    invalid_values_are_reported,
);
