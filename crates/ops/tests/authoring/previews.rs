//! Tests of previews, which show authors a draft as users will see it.

use serde_json::json;
use waypost_core::Code;
use waypost_core::caller::{Caller, Ctx};
use waypost_core::id::{StepId, UserId, WalkthroughId};
use waypost_core::organization::Role;
use waypost_core::step::StepContent;
use waypost_ops::walkthroughs::preview::{PreviewPoint, render};

use crate::{Fixture, content, set_up};

async fn a_draft_can_be_previewed_from_start_to_end(fixture: Fixture) {
    let (id, steps) = fixture.create_with_steps("T", &["A", "B", "C"]).await;
    let revision = fixture.get_draft(&id).await.walkthrough.revision;
    let at = async |n| render(&fixture.cx, &fixture.ops, &fixture.org, &id, PreviewPoint::After(n)).await.unwrap();

    let first = at(0).await;
    assert_eq!((first.tool, &first.arguments), ("select_walkthrough", &json!({ "walkthrough_id": id })));
    assert!(first.result.text.starts_with("Step 1 of 3 (0%): A\n"), "{}", first.result.text);
    assert!(first.result.text.contains("Started \"T\"."));
    assert_eq!(first.result.structured["walkthrough"]["version"], 1, "the version number that publishing would assign");

    let second = at(1).await;
    let arguments = json!({ "walkthrough_id": id, "current_step_id": steps[0] });
    assert_eq!((second.tool, second.arguments), ("next_walkthrough_step", arguments));
    assert_eq!(second.result.structured["step"]["id"], json!(steps[1]));
    assert_eq!(second.result.structured["completed_step_id"], json!(steps[0]));
    assert_eq!(second.result.structured["progress"]["percent"], 33);

    let end = at(3).await;
    assert_eq!((&end.step, end.completed, end.total), (&None, 3, 3));
    assert_eq!(end.result.structured["progress"]["status"], "completed");
    assert!(end.result.text.contains("All 3 steps are completed (100%)"));
    assert_eq!(at(99).await, end, "positions beyond the end show the end");
    assert_eq!(fixture.get_draft(&id).await.walkthrough.revision, revision, "nothing was written");
}

async fn an_unsaved_step_is_previewed_as_it_would_be_saved(fixture: Fixture) {
    let (id, steps) = fixture.create_with_steps("T", &["A", "B"]).await;
    let show = async |step: &StepId, content: Option<StepContent>| {
        render(&fixture.cx, &fixture.ops, &fixture.org, &id, PreviewPoint::Step(step.clone(), content.map(Box::new)))
            .await
    };
    let saved = show(&steps[1], None).await.unwrap();
    assert_eq!(saved.step.map(|step| step.id).as_ref(), Some(&steps[1]));
    let unsaved = StepContent { content: "Hi <script>x</script>there".to_owned(), ..content("New ") };
    let shown = show(&steps[1], Some(unsaved)).await.unwrap();
    assert!(shown.result.text.contains(": New\n") && !shown.result.text.contains("script"), "{}", shown.result.text);
    assert_eq!(fixture.list_titles(&id).await, ["A", "B"]);

    let error = show(&steps[1], Some(content(""))).await.unwrap_err();
    assert_eq!((error.code, &error.details["field"]), (Code::InvalidArguments, &json!("title")));
    let error = show(&StepId::from_store("ws_none".into()), None).await.unwrap_err();
    assert_eq!(error.code, Code::StepNotFound);
}

async fn callers_without_access_cannot_preview(fixture: Fixture) {
    let (id, _) = fixture.create_with_steps("T", &["A"]).await;
    let empty = fixture.create("Empty").await.id;
    let as_caller = |caller| Ctx { caller, ..fixture.cx.clone() };
    let member = |organization_id| Caller::Member { organization_id, role: Role::Owner, actor: "usr_1".to_owned() };
    let own = as_caller(member(fixture.org.clone()));
    let foreign = as_caller(member(fixture.other.clone()));
    let visitor = as_caller(Caller::Visitor);
    let user = as_caller(Caller::User { user_id: UserId::from_store("usr_1".into()) });
    let try_render = async |cx: &Ctx, organization, id: &WalkthroughId| {
        render(cx, &fixture.ops, organization, id, PreviewPoint::After(0)).await.map_err(|error| error.code)
    };
    assert!(try_render(&own, &fixture.org, &id).await.is_ok());
    assert_eq!(try_render(&own, &fixture.org, &empty).await, Err(Code::WalkthroughEmpty));
    assert_eq!(try_render(&foreign, &fixture.other, &id).await, Err(Code::NotFound), "another organisation's ID");
    for cx in [&foreign, &visitor, &user] {
        assert_eq!(try_render(cx, &fixture.org, &id).await, Err(Code::NotFound));
    }
}

waypost_testkit::both!(extended set_up =>
    a_draft_can_be_previewed_from_start_to_end,
    an_unsaved_step_is_previewed_as_it_would_be_saved,
    callers_without_access_cannot_preview,
);
