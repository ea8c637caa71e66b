//! Searches the walkthroughs of a server: any word matches, the best match comes first, and case and accents are
//! ignored.

use std::cmp::Reverse;

use icu_casemap::CaseMapper;
use icu_normalizer::DecomposingNormalizer;
use icu_normalizer::properties::CanonicalCombiningClassMap;

/// Maximum length of a query in characters. Part of the schema of `list_walkthroughs`.
pub const MAX_QUERY: usize = 500;
/// Maximum number of words used from a query.
const MAX_WORDS: usize = 32;
/// The minimum length of an ASCII word that also matches part of a word: `to` must not match `tool`.
const MIN_PART: usize = 3;

/// Returns `text` in the form used for comparison: compatibility-decomposed, without accents, case-folded.
#[must_use]
pub fn fold(text: &str) -> String {
    let classes = CanonicalCombiningClassMap::new();
    let decomposed = DecomposingNormalizer::new_nfkd().normalize(text).into_owned();
    let plain: String = decomposed.chars().filter(|c| classes.get_u8(*c) == 0).collect();
    // Case folding can introduce combining marks (`İ`), so remove them again.
    let folded = CaseMapper::new().fold_string(&plain).into_owned();
    let decomposed = DecomposingNormalizer::new_nfkd().normalize(&folded).into_owned();
    decomposed.chars().filter(|c| classes.get_u8(*c) == 0).collect()
}

/// A parsed query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query(Vec<String>);

impl Query {
    /// Parses a query. Returns `None` if it contains no word.
    #[must_use]
    pub fn parse(query: &str) -> Option<Self> {
        let mut words: Vec<String> = Vec::new();
        for word in words_of(&fold(query)) {
            if words.len() < MAX_WORDS && !words.iter().any(|known| known == word) {
                words.push(word.to_owned());
            }
        }
        (!words.is_empty()).then_some(Self(words))
    }
}

/// The searchable text of a walkthrough.
#[derive(Debug, Clone, Copy)]
pub struct Document<'a> {
    /// The title.
    pub title: &'a str,
    /// The description.
    pub description: &'a str,
    /// The tags.
    pub tags: &'a [String],
    /// The titles of the steps, one per line. Already folded with [`fold`], because there are many and they never
    /// change.
    pub folded_steps: &'a str,
}

/// Splits a text into runs of letters and digits. Text in a script without spaces is one word, and parts of it match.
fn words_of(folded: &str) -> impl Iterator<Item = &str> {
    folded.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty())
}

/// Returns the quality of a match of `word` in a text: 2 for a whole word, 1 for part of a word, 0 for no match.
fn match_quality(word: &str, folded: &str) -> u32 {
    if words_of(folded).any(|other| other == word) {
        return 2;
    }
    let can_be_part = !word.is_ascii() || word.len() >= MIN_PART;
    u32::from(can_be_part && folded.contains(word))
}

/// Returns the indices of the matching documents, best match first: by the number of matching words, then by where they
/// occur (title, tags, description, step titles), then in their original order.
#[must_use]
pub fn rank<'a>(query: &Query, documents: impl IntoIterator<Item = Document<'a>>) -> Vec<usize> {
    let mut found: Vec<(Reverse<(usize, u32)>, usize)> = Vec::new();
    for (number, document) in documents.into_iter().enumerate() {
        let fields = [(8, fold(document.title)), (4, fold(&document.tags.join("\n"))), (2, fold(document.description))];
        let score = |word: &String| {
            let best = fields.iter().map(|(weight, text)| weight * match_quality(word, text)).max().unwrap_or(0);
            best.max(match_quality(word, document.folded_steps))
        };
        let scores: Vec<u32> = query.0.iter().map(score).collect();
        let matched = scores.iter().filter(|score| **score > 0).count();
        if matched > 0 {
            found.push((Reverse((matched, scores.iter().sum())), number));
        }
    }
    found.sort_unstable();
    found.into_iter().map(|(_, number)| number).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn search(query: &str, titles: &[&str]) -> Vec<usize> {
        let documents = titles.iter().map(|title| Document { title, description: "", tags: &[], folded_steps: "" });
        Query::parse(query).map_or_else(Vec::new, |query| rank(&query, documents))
    }

    #[test]
    fn case_and_accents_are_ignored() {
        for (query, title) in [
            ("CAFÉ", "cafe"),
            ("cafe\u{301}", "Café"),
            ("strasse", "Straße"),
            ("ISTANBUL", "İstanbul"),
            ("ﬁle", "FILE"),
            ("ΣΊΣΥΦΟΣ", "Σίσυφος"),
            ("데이터", "데이터베이스"),
            ("認証", "二段階認証"),
        ] {
            assert_eq!(search(query, &[title]), [0], "{query} in {title}");
        }
    }

    #[test]
    fn any_word_matches_and_the_best_match_comes_first() {
        let titles = ["Connect a database", "Install", "Install the database", "Reinstall everything"];
        assert_eq!(search("install database", &titles), [2, 0, 1, 3]);
        assert_eq!(search("instal", &titles), [1, 2, 3], "part of a word, in their original order");
        assert_eq!(search("a", &titles), [0], "a short word matches only a whole word");
        assert!(search("kubernetes", &titles).is_empty());
        assert!(Query::parse("  … !? ").is_none());
    }

    #[test]
    fn every_field_is_searched_and_the_title_has_the_highest_weight() {
        let tags = ["docker".to_owned()];
        let nothing = Document { title: "", description: "", tags: &[], folded_steps: "" };
        let documents = [
            Document { folded_steps: "run docker\nstop", ..nothing },
            Document { description: "With Docker.", ..nothing },
            Document { tags: &tags, ..nothing },
            Document { title: "Docker", ..nothing },
            nothing,
        ];
        assert_eq!(rank(&Query::parse("docker").unwrap(), documents), [3, 2, 1, 0]);
    }

    proptest! {
        #[test]
        fn folding_is_idempotent_and_a_text_matches_itself(text in "\\PC{0,40}") {
            let folded = fold(&text);
            prop_assert_eq!(fold(&folded), folded.clone());
            if Query::parse(&text).is_some() {
                prop_assert_eq!(search(&text, &[&text]), [0]);
            }
        }
    }
}
