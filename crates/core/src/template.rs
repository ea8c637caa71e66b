//! Steps to begin a walkthrough of each type with: short, true for any product, and complete enough to be published. What
//! stands in ‹angle quotes› is for the author to fill in.

use crate::step::StepContent;
use crate::walkthrough::WalkthroughType;

/// What a walkthrough of this type is good for, in a sentence for authors who choose one.
#[must_use]
pub fn purpose(kind: WalkthroughType) -> &'static str {
    match kind {
        WalkthroughType::Course => "Lessons in order, each with something to try and a check that it was understood.",
        WalkthroughType::Installer => {
            "Sets something up on the user's machine; every step says what the agent runs and how it knows that it worked."
        }
        WalkthroughType::Troubleshooting => {
            "Finds out what is wrong and mends it; every step gives the agent what it has to know to decide."
        }
        WalkthroughType::Integration => {
            "Connects your product with another one; every step has the background and the operations for the agent."
        }
        WalkthroughType::Quickstart => "The shortest way from nothing to a first result.",
    }
}

/// The steps to begin with.
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
        content: "After this course you can ‹what the learner can do then›.\n\nIt takes about ‹minutes› minutes. You need:\n\n\
            - ‹something to have or to know›\n- ‹something to install›",
        introduction: "Greet the learner, say in one sentence what they will be able to do, and ask what they know already.",
        context: "",
        operations: "",
    },
    Text {
        title: "The first idea",
        section: "Lessons",
        content: "‹The idea in two or three sentences.›\n\n## An example\n\n```\n‹the smallest example that shows it›\n```\n\n\
            ## Try it\n\n‹What to change in the example, and what should happen then.›",
        introduction: "Explain the idea with the example, then let the learner try it before you go on.",
        context: "A common misunderstanding: ‹what learners get wrong, and how to put it right›.",
        operations: "",
    },
    Text {
        title: "Use it for something real",
        section: "Lessons",
        content: "Now use it in your own project: ‹a small task with a result that can be seen›.\n\nIt is done when ‹how to tell›.",
        introduction: "Help with hints first; write code for the learner only when they ask for it.",
        context: "",
        operations: "",
    },
    Text {
        title: "Check what you know",
        section: "End",
        content: "Answer these in your own words:\n\n1. ‹A question about the first idea›\n2. ‹A question about where it does not fit›\n\n\
            Next: ‹where to go from here›.",
        introduction: "Ask the questions one at a time. Go back to a lesson when an answer shows a gap.",
        context: "Good answers say: 1. ‹…› 2. ‹…›",
        operations: "",
    },
];

const INSTALLER: &[Text] = &[
    Text {
        title: "Check what is there",
        section: "Prepare",
        content: "Before anything is installed, your agent looks at your system: operating system, ‹runtime› and free space. Nothing \
            is changed in this step.",
        introduction: "Say that this step only reads.",
        context: "Supported: ‹systems and versions›.",
        operations: "1. Find out the operating system and its version.\n2. Run `‹tool› --version`; it has to be ‹version› or newer.\n\
            3. When something is missing, tell the user what and stop.",
    },
    Text {
        title: "Install",
        section: "Install",
        content: "Your agent installs ‹product› with the package manager of your system. It asks before it runs anything with higher \
            rights.",
        introduction: "Show the command and ask before running it.",
        context: "",
        operations: "1. Run `‹install command›`.\n2. Run `‹product› --version` and check that it answers.\n\
            3. On an error, show its last lines and do not go on.",
    },
    Text {
        title: "Configure",
        section: "Install",
        content: "‹Product› needs these settings:\n\n| Setting | Meaning |\n|---|---|\n| `‹NAME›` | ‹what it is for› |",
        introduction: "",
        context: "Secrets are entered by the user and are never repeated in the conversation.",
        operations: "1. Ask for each setting that has no default.\n2. Write them to `‹file›`; keep what is in it.\n\
            3. Run `‹command that checks the configuration›`.",
    },
    Text {
        title: "See it work",
        section: "Verify",
        content: "Run `‹a harmless command›`. You should see ‹what›.",
        introduction: "Congratulate the user when it works, and name one thing to try next.",
        context: "",
        operations: "1. Run `‹a harmless command›`.\n2. Compare what it prints with what the step says.\n\
            3. Say how to take the installation back: `‹uninstall command›`.",
    },
];

const TROUBLESHOOTING: &[Text] = &[
    Text {
        title: "Describe what happens",
        section: "Look",
        content: "What did you do, what did you expect, and what happened instead? Copy the exact message, if there is one.",
        introduction: "Ask for the message as it is. Do not guess a cause yet.",
        context: "This walkthrough is about ‹the fault›. Signs of it: ‹messages, states›. For anything else, say so and stop.",
        operations: "",
    },
    Text {
        title: "Narrow it down",
        section: "Look",
        content: "Let us see which part fails:\n\n1. Does ‹first part› answer?\n2. Does it also happen with ‹a plain setup›?",
        introduction: "One check at a time; say what each result means.",
        context: "When 1 fails, the cause is ‹A›. When only 2 makes it work, the cause is ‹B›. Otherwise go on.",
        operations: "1. Run `‹check›` and read its answer.\n2. Note which case it is; the next step depends on it.",
    },
    Text {
        title: "Mend it",
        section: "Mend",
        content: "**Cause A:** ‹what to do›\n\n**Cause B:** ‹what to do›",
        introduction: "Do only what fits the case that was found. Ask before anything that cannot be taken back.",
        context: "‹What each remedy changes, and how it is taken back.›",
        operations: "",
    },
    Text {
        title: "Make sure that it is gone",
        section: "Mend",
        content: "Do what you did at the beginning. The message should not come any more.\n\nIf it still does, ask for help and say which \
            of the checks failed.",
        introduction: "",
        context: "When it is not mended, gather for support: version, system, the message, and the results of the checks.",
        operations: "",
    },
];

const INTEGRATION: &[Text] = &[
    Text {
        title: "What will be connected",
        section: "Prepare",
        content: "This connects ‹your product› with ‹the other product›, so that ‹what then happens by itself›. You need the right to \
            ‹make keys, install apps› in both.",
        introduction: "Say what data goes from where to where before anything is set up.",
        context: "Data goes from ‹A› to ‹B› only. Needed rights: ‹scopes›.",
        operations: "1. Ask for the address of the user's ‹other product›.\n2. Check that it answers: `‹command›`.",
    },
    Text {
        title: "Make the credentials",
        section: "Connect",
        content: "In ‹the other product›, open ‹Settings › Keys› and make a key with the rights ‹scopes›. Copy it: it is shown once.",
        introduction: "",
        context: "The key is a secret: it goes into the configuration, never into the conversation, a file of the project or a log.",
        operations: "1. Tell the user where the key is entered.\n2. Check that it works: `‹command that only reads›`.",
    },
    Text {
        title: "Connect",
        section: "Connect",
        content: "Enter the key in ‹your product› under ‹where›, and choose ‹what to connect›.",
        introduction: "",
        context: "Each of the two sides can be changed without the other; order does not matter.",
        operations: "1. Set `‹setting›`.\n2. Restart or reload ‹what›.\n3. Read the log for `‹the line that says it is connected›`.",
    },
    Text {
        title: "Send something through",
        section: "Verify",
        content: "Make ‹a test item› in ‹A›. It should appear in ‹B› within ‹time›.",
        introduction: "",
        context: "When nothing arrives: key (401), rights (403), address (404), or the other side has not been told yet.",
        operations: "1. Make ‹a test item›.\n2. Look for it in ‹B›.\n3. Delete it again on both sides.",
    },
];

const QUICKSTART: &[Text] = &[
    Text {
        title: "Get it",
        section: "",
        content: "```\n‹one command that installs or signs up›\n```",
        introduction: "Be brief: this is the shortest way to a first result.",
        context: "",
        operations: "Run the command after the user agrees.",
    },
    Text {
        title: "Make your first ‹thing›",
        section: "",
        content: "```\n‹the smallest input that gives a result worth seeing›\n```\n\nYou should see:\n\n```\n‹the result›\n```",
        introduction: "Let the user see the result before you explain it.",
        context: "",
        operations: "",
    },
    Text {
        title: "Go on from here",
        section: "",
        content: "- ‹The next thing most people do›\n- ‹Where the documentation is›\n- ‹Where to ask›",
        introduction: "Ask what the user wants to build, and name the one link that fits.",
        context: "",
        operations: "",
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::markdown::{bidi_in_code, clean_line, clean_markdown, clean_plain};
    use crate::transfer::lint::{Severity, lint};

    #[test]
    fn every_template_could_be_published_and_survives_cleaning() {
        for kind in WalkthroughType::ALL {
            let steps = steps(*kind);
            assert!((3..=6).contains(&steps.len()), "{kind}");
            let findings = lint(*kind, &steps, bidi_in_code);
            assert!(findings.iter().all(|finding| finding.severity != Severity::Error), "{kind}: {findings:?}");
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
}
