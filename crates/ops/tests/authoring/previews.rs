//! What authors are shown of a draft: what users will get of it.

use serde_json::json;
use waypost_core::Code;
use waypost_core::caller::{Caller, Ctx};
use waypost_core::id::{StepId, UserId, WalkthroughId};
use waypost_core::organization::Role;
use waypost_core::step::StepContent;
use waypost_ops::walkthroughs::preview::{PreviewPoint, render};

use crate::{World, content, open};

async fn a_draft_is_played_from_start_to_end(world: World) {
    let (id, steps) = world.with_steps("T", &["A", "B", "C"]).await;
    let revision = world.get_draft(&id).await.walkthrough.revision;
    let at = async |n| render(&world.cx, &world.ops, &world.org, &id, PreviewPoint::After(n)).await.unwrap();

    let first = at(0).await;
    assert_eq!((first.tool, &first.arguments), ("select_walkthrough", &json!({ "walkthrough_id": id })));
    assert!(first.answer.text.starts_with("Step 1 of 3 (0 %): A\n"), "{}", first.answer.text);
    assert!(first.answer.text.contains("Started \"T\"."));
    assert_eq!(first.answer.structured["walkthrough"]["version"], 1, "as the version that publishing would make");

    let second = at(1).await;
    let arguments = json!({ "walkthrough_id": id, "current_step_id": steps[0] });
    assert_eq!((second.tool, second.arguments), ("next_walkthrough_step", arguments));
    assert_eq!(second.answer.structured["step"]["id"], json!(steps[1]));
    assert_eq!(second.answer.structured["completed_step_id"], json!(steps[0]));
    assert_eq!(second.answer.structured["progress"]["percent"], 33);

    let end = at(3).await;
    assert_eq!((&end.step, end.completed, end.total), (&None, 3, 3));
    assert_eq!(end.answer.structured["progress"]["status"], "completed");
    assert!(end.answer.text.contains("All 3 steps are done (100 %)"));
    assert_eq!(at(99).await, end, "there is nothing behind the end");
    assert_eq!(world.get_draft(&id).await.walkthrough.revision, revision, "nothing was written");
}

async fn a_step_is_shown_as_it_would_be_saved(world: World) {
    let (id, steps) = world.with_steps("T", &["A", "B"]).await;
    let show = async |step: &StepId, content: Option<StepContent>| {
        render(&world.cx, &world.ops, &world.org, &id, PreviewPoint::Step(step.clone(), content.map(Box::new))).await
    };
    let saved = show(&steps[1], None).await.unwrap();
    assert_eq!(saved.step.map(|step| step.id).as_ref(), Some(&steps[1]));
    let typed = StepContent { content: "Hi <script>x</script>there".to_owned(), ..content("New ") };
    let shown = show(&steps[1], Some(typed)).await.unwrap();
    assert!(shown.answer.text.contains(": New\n") && !shown.answer.text.contains("script"), "{}", shown.answer.text);
    assert_eq!(world.titles(&id).await, ["A", "B"]);

    let error = show(&steps[1], Some(content(""))).await.unwrap_err();
    assert_eq!((error.code, &error.details["field"]), (Code::InvalidArguments, &json!("title")));
    let error = show(&StepId::from_store("ws_none".into()), None).await.unwrap_err();
    assert_eq!(error.code, Code::StepNotFound);
}

async fn who_may_not_read_is_shown_nothing(world: World) {
    let (id, _) = world.with_steps("T", &["A"]).await;
    let empty = world.create("Empty").await.id;
    let as_caller = |caller| Ctx { caller, ..world.cx.clone() };
    let member = |organization_id| Caller::Member { organization_id, role: Role::Owner, actor: "usr_1".to_owned() };
    let ours = as_caller(member(world.org.clone()));
    let theirs = as_caller(member(world.other.clone()));
    let visitor = as_caller(Caller::Visitor);
    let user = as_caller(Caller::User { user_id: UserId::from_store("usr_1".into()) });
    let try_render = async |cx: &Ctx, organization, id: &WalkthroughId| {
        render(cx, &world.ops, organization, id, PreviewPoint::After(0)).await.map_err(|error| error.code)
    };
    assert!(try_render(&ours, &world.org, &id).await.is_ok());
    assert_eq!(try_render(&ours, &world.org, &empty).await, Err(Code::WalkthroughEmpty));
    assert_eq!(try_render(&theirs, &world.other, &id).await, Err(Code::NotFound), "another organisation's id");
    for cx in [&theirs, &visitor, &user] {
        assert_eq!(try_render(cx, &world.org, &id).await, Err(Code::NotFound));
    }
}

waypost_testkit::both!(open =>
    a_draft_is_played_from_start_to_end,
    a_step_is_shown_as_it_would_be_saved,
    who_may_not_read_is_shown_nothing,
);
