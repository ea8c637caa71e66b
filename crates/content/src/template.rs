//! Template steps for each type of walkthrough. They are short and apply to any product. Authors replace the
//! placeholders `‹fill in: …›`; a walkthrough that still contains one cannot be published.

use std::sync::LazyLock;

use waypost_core::step::StepContent;
use waypost_core::walkthrough::WalkthroughType;

/// Returns a sentence that describes the purpose of a walkthrough type, for authors who choose one.
#[must_use]
pub fn purpose(kind: WalkthroughType) -> &'static str {
    match kind {
        WalkthroughType::Course => "A sequence of lessons, each with an exercise and a check of what was learned.",
        WalkthroughType::Installer => {
            "Sets something up on the user's machine. Each step states what the agent runs and how it verifies the result."
        }
        WalkthroughType::Troubleshooting => {
            "Diagnoses and fixes a problem. Each step gives the agent the context to decide what to do."
        }
        WalkthroughType::Integration => {
            "Connects your product with another one. Each step has context and operations for the agent."
        }
        WalkthroughType::Quickstart => "The shortest path to a first result.",
    }
}

/// Returns the template steps of a type.
#[must_use]
pub fn steps(kind: WalkthroughType) -> Vec<StepContent> {
    let texts: &[Text] = match kind {
        WalkthroughType::Course => COURSE,
        WalkthroughType::Installer => INSTALLER,
        WalkthroughType::Troubleshooting => TROUBLESHOOTING,
        WalkthroughType::Integration => INTEGRATION,
        WalkthroughType::Quickstart => QUICKSTART,
    };
    texts.iter().map(Text::step).collect()
}

/// The start of every placeholder.
const PLACEHOLDER: &str = "‹fill in: ";

/// Returns the first template placeholder in `text`. Nothing else counts: not `{{mustache}}`, not `<YOUR_API_KEY>`, not
/// a word in ‹quotation marks›. Older drafts contain the same placeholders without `fill in`; of these, only phrases of
/// at least three words are recognised, because shorter ones could be quotations.
#[must_use]
pub fn find_placeholder(text: &str) -> Option<&str> {
    text.match_indices('‹').find_map(|(at, _)| {
        let rest = &text[at..];
        if rest.starts_with(PLACEHOLDER) {
            return rest.find('›').map(|end| &rest[..end + '›'.len_utf8()]);
        }
        let former = FORMER_PLACEHOLDERS.iter().find(|former| rest.starts_with(former.as_str()))?;
        Some(&rest[..former.len()])
    })
}

/// The placeholders of all templates in their former form, without `fill in`.
static FORMER_PLACEHOLDERS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let texts = [COURSE, INSTALLER, TROUBLESHOOTING, INTEGRATION, QUICKSTART].into_iter().flatten();
    let texts = texts.flat_map(|text| [text.title, text.content, text.introduction, text.context, text.operations]);
    let placeholders = texts.flat_map(|text| text.split(PLACEHOLDER).skip(1)).filter_map(|rest| rest.split('›').next());
    let phrases = placeholders.filter(|words| words.split_whitespace().count() >= 3);
    phrases.map(|words| format!("‹{words}›")).collect()
});

struct Text {
    title: &'static str,
    section: &'static str,
    content: &'static str,
    introduction: &'static str,
    context: &'static str,
    operations: &'static str,
}

impl Text {
    fn step(&self) -> StepContent {
        let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        StepContent {
            title: self.title.to_owned(),
            section_title: text(self.section),
            content: self.content.to_owned(),
            introduction_for_agent: text(self.introduction),
            context_for_agent: text(self.context),
            operations_for_agent: text(self.operations),
            ..StepContent::default()
        }
    }
}

const COURSE: &[Text] = &[
    Text {
        title: "What you will learn",
        section: "Begin",
        content: "After this course, you can ‹fill in: what the learner can do then›.\n\nIt takes about ‹fill in: minutes› minutes. You need:\n\n\
            - ‹fill in: something to have or to know›\n- ‹fill in: something to install›",
        introduction: "Greet the learner, say in one sentence what they will be able to do, and ask what they already know.",
        context: "",
        operations: "",
    },
    Text {
        title: "The first idea",
        section: "Lessons",
        content: "‹fill in: The idea in two or three sentences.›\n\n## An example\n\n```\n‹fill in: the smallest example that shows it›\n```\n\n\
            ## Try it\n\n‹fill in: What to change in the example, and what should happen then.›",
        introduction: "Explain the idea with the example, then let the learner try it before you go on.",
        context: "A common misunderstanding: ‹fill in: what learners get wrong, and how to put it right›.",
        operations: "",
    },
    Text {
        title: "Use it for something real",
        section: "Lessons",
        content: "Now use it in your own project: ‹fill in: a small task with a result that can be seen›.\n\nIt is done when ‹fill in: how to tell›.",
        introduction: "Help with hints first; write code for the learner only when they ask for it.",
        context: "",
        operations: "",
    },
    Text {
        title: "Check what you know",
        section: "End",
        content: "Answer these in your own words:\n\n1. ‹fill in: A question about the first idea›\n2. ‹fill in: A question about where it does not fit›\n\n\
            Next: ‹fill in: where to go from here›.",
        introduction: "Ask the questions one at a time. Go back to a lesson when an answer shows a gap.",
        context: "Good answers say: 1. ‹fill in: what a good answer says› 2. ‹fill in: what a good answer says›",
        operations: "",
    },
];

const INSTALLER: &[Text] = &[
    Text {
        title: "Check the prerequisites",
        section: "Prepare",
        content: "Before anything is installed, your agent checks your system: the operating system, ‹fill in: runtime› and free space. Nothing \
            is changed in this step.",
        introduction: "Say that this step only reads.",
        context: "Supported: ‹fill in: systems and versions›.",
        operations: "1. Find out the operating system and its version.\n2. Run `‹fill in: tool› --version`; it must be ‹fill in: version› or newer.\n\
            3. If anything is missing, tell the user what it is and stop.",
    },
    Text {
        title: "Install",
        section: "Install",
        content: "Your agent installs ‹fill in: product› with the package manager of your system. It asks before it runs anything with elevated \
            privileges.",
        introduction: "Show the command and ask before running it.",
        context: "",
        operations: "1. Run `‹fill in: install command›`.\n2. Run `‹fill in: product› --version` and check that it works.\n\
            3. On an error, show the last lines of the output and stop.",
    },
    Text {
        title: "Configure",
        section: "Install",
        content: "‹fill in: Product› needs these settings:\n\n| Setting | Meaning |\n|---|---|\n| `‹fill in: NAME›` | ‹fill in: what it is for› |",
        introduction: "",
        context: "The user enters secrets; they are never repeated in the conversation.",
        operations: "1. Ask for each setting that has no default.\n2. Write them to `‹fill in: file›`; keep its existing content.\n\
            3. Run `‹fill in: command that checks the configuration›`.",
    },
    Text {
        title: "See it work",
        section: "Verify",
        content: "Run `‹fill in: a harmless command›`. You should see ‹fill in: what›.",
        introduction: "When it works, congratulate the user and suggest one thing to try next.",
        context: "",
        operations: "1. Run `‹fill in: a harmless command›`.\n2. Compare what it prints with what the step says.\n\
            3. Explain how to undo the installation: `‹fill in: uninstall command›`.",
    },
];

const TROUBLESHOOTING: &[Text] = &[
    Text {
        title: "Describe what happens",
        section: "Diagnose",
        content: "What did you do, what did you expect, and what happened instead? Copy the exact message, if there is one.",
        introduction: "Ask for the exact message. Do not guess a cause yet.",
        context: "This walkthrough is about ‹fill in: the fault›. Symptoms: ‹fill in: messages, states›. For anything else, say so and stop.",
        operations: "",
    },
    Text {
        title: "Narrow it down",
        section: "Diagnose",
        content: "Find out which part fails:\n\n1. Does ‹fill in: first part› respond?\n2. Does it also happen with ‹fill in: a plain setup›?",
        introduction: "Do one check at a time and explain what each result means.",
        context: "If 1 fails, the cause is ‹fill in: A›. If it works only with 2, the cause is ‹fill in: B›. Otherwise continue.",
        operations: "1. Run `‹fill in: check›` and read its output.\n2. Note which case it is; the next step depends on it.",
    },
    Text {
        title: "Fix it",
        section: "Fix",
        content: "**Cause A:** ‹fill in: what to do›\n\n**Cause B:** ‹fill in: what to do›",
        introduction: "Do only what applies to the cause that was found. Ask before doing anything that cannot be undone.",
        context: "‹fill in: What each remedy changes, and how it is taken back.›",
        operations: "",
    },
    Text {
        title: "Verify the fix",
        section: "Fix",
        content: "Do what you did at the beginning. The message should no longer appear.\n\nIf it still does, ask for help and say which \
            checks failed.",
        introduction: "",
        context: "If the problem persists, collect this for support: version, system, the message, and the results of the checks.",
        operations: "",
    },
];

const INTEGRATION: &[Text] = &[
    Text {
        title: "What will be connected",
        section: "Prepare",
        content: "This connects ‹fill in: your product› with ‹fill in: the other product›, so that ‹fill in: what then happens by itself›. You need permission to \
            ‹fill in: make keys, install apps› in both.",
        introduction: "Explain which data is transferred, and in which direction, before setting anything up.",
        context: "Data goes from ‹fill in: A› to ‹fill in: B› only. Required permissions: ‹fill in: scopes›.",
        operations: "1. Ask for the URL of the user's ‹fill in: other product›.\n2. Check that it responds: `‹fill in: command›`.",
    },
    Text {
        title: "Create the credentials",
        section: "Connect",
        content: "In ‹fill in: the other product›, open ‹fill in: Settings, then Keys› and create a key with the permissions ‹fill in: scopes›. Copy it: it is shown only once.",
        introduction: "",
        context: "The key is a secret: it goes into the configuration, never into the conversation, a file of the project or a log.",
        operations: "1. Tell the user where to enter the key.\n2. Check that it works: `‹fill in: command that only reads›`.",
    },
    Text {
        title: "Connect",
        section: "Connect",
        content: "Enter the key in ‹fill in: your product› under ‹fill in: where›, and choose ‹fill in: what to connect›.",
        introduction: "",
        context: "Either side can be changed independently; the order does not matter.",
        operations: "1. Set `‹fill in: setting›`.\n2. Restart or reload ‹fill in: what›.\n3. Read the log for `‹fill in: the line that says it is connected›`.",
    },
    Text {
        title: "Test the connection",
        section: "Verify",
        content: "Create ‹fill in: a test item› in ‹fill in: A›. It should appear in ‹fill in: B› within ‹fill in: time›.",
        introduction: "",
        context: "If nothing arrives, check the key (401), the permissions (403), the URL (404), and the configuration of the other side.",
        operations: "1. Create ‹fill in: a test item›.\n2. Look for it in ‹fill in: B›.\n3. Delete it again on both sides.",
    },
];

const QUICKSTART: &[Text] = &[
    Text {
        title: "Get it",
        section: "",
        content: "```\n‹fill in: one command that installs or signs up›\n```",
        introduction: "Be brief: this is the shortest path to a first result.",
        context: "",
        operations: "Run the command after the user agrees.",
    },
    Text {
        title: "Create your first ‹fill in: thing›",
        section: "",
        content: "```\n‹fill in: the smallest input that gives a result worth seeing›\n```\n\nYou should see:\n\n```\n‹fill in: the result›\n```",
        introduction: "Let the user see the result before you explain it.",
        context: "",
        operations: "",
    },
    Text {
        title: "Next steps",
        section: "",
        content: "- ‹fill in: The next thing most people do›\n- ‹fill in: Where the documentation is›\n- ‹fill in: Where to ask›",
        introduction: "Ask what the user wants to build, and point out the most relevant link.",
        context: "",
        operations: "",
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::markdown::{clean_line, clean_markdown, clean_plain};
    use crate::transfer::lint::{Severity, lint};

    #[test]
    fn the_only_errors_of_a_template_are_its_placeholders() {
        for kind in WalkthroughType::ALL {
            let steps = steps(*kind);
            assert!((3..=6).contains(&steps.len()), "{kind}");
            let findings = lint(*kind, &steps);
            let errors = findings.iter().filter(|finding| finding.severity == Severity::Error);
            let mut count = 0;
            for error in errors {
                count += 1;
                assert!(error.message.contains("‹fill in: "), "{kind}: {error}");
            }
            assert!(count > 0, "{kind}");
            for step in steps {
                assert_eq!(clean_line(&step.title), step.title);
                assert_eq!(clean_markdown(&step.content), step.content);
                for text in
                    [step.introduction_for_agent, step.context_for_agent, step.operations_for_agent].iter().flatten()
                {
                    assert_eq!(clean_plain(text), *text);
                }
            }
        }
    }

    #[test]
    fn a_filled_in_template_can_be_published() {
        let fill = |text: &str| {
            let mut text = text.to_owned();
            while let Some(placeholder) = find_placeholder(&text).map(str::to_owned) {
                text = text.replacen(&placeholder, "Rockets", 1);
            }
            text
        };
        for kind in WalkthroughType::ALL {
            let filled = steps(*kind).into_iter().map(|step| StepContent {
                title: fill(&step.title),
                content: fill(&step.content),
                introduction_for_agent: step.introduction_for_agent.as_deref().map(fill),
                context_for_agent: step.context_for_agent.as_deref().map(fill),
                operations_for_agent: step.operations_for_agent.as_deref().map(fill),
                ..step
            });
            let filled: Vec<_> = filled.collect();
            let findings = lint(*kind, &filled);
            assert!(findings.iter().all(|finding| finding.severity != Severity::Error), "{kind}: {findings:?}");
            assert!(!format!("{filled:?}").contains(['‹', '›']), "{kind}");
        }
    }

    #[test]
    fn only_template_placeholders_are_found() {
        assert_eq!(find_placeholder("It takes ‹fill in: minutes› minutes, ‹fill in: x›"), Some("‹fill in: minutes›"));
        assert_eq!(
            find_placeholder("Then you can ‹what the learner can do then›."),
            Some("‹what the learner can do then›")
        );
        let texts = [
            "{{exec}} {{ user.name }} {% if a %} {{{raw}}} ${HOME} $(date) %s",
            "curl -H \"Authorization: Bearer <YOUR_API_KEY>\" [TODO] YOUR_NAME_HERE",
            "Er sagte: «Sie rief ‹Halt› und ‹was nun›.» ‹product› ‹Settings› fill in: the form",
            "‹fill in: never closed",
        ];
        for text in texts {
            assert_eq!(find_placeholder(text), None, "{text}");
        }
    }
}
