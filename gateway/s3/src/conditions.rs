//! Conditional requests: what the client demands of the object's present state.
//!
//! Reads follow RFC 9110 section 13.2.2, with `If-Match` before `If-Unmodified-Since` before `If-None-Match` before
//! `If-Modified-Since`; copy sources answer 412 wherever a read would answer 304. Dates compare at whole seconds and etags
//! with their quotes stripped, because icechunk and Hadoop send them bare. Conditional writes are decided by the key's
//! metadata group in the same step as the write, so here they are only a value.

use placement_types::Timestamp;

/// A list of etags, or `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EtagList {
    /// `*`: any existing object.
    Any,
    /// Etags without quotes and without `W/`.
    These(Vec<String>),
}

impl EtagList {
    /// Reads an `If-Match` or `If-None-Match` value. Quotes are optional, and `"*"` in quotes is still `*`, as clients
    /// that quote whatever they are given send it so.
    pub fn parse(value: &str) -> Self {
        let etags: Vec<String> =
            value.split(',').map(strip_etag_quotes).filter(|etag| !etag.is_empty()).map(str::to_owned).collect();
        if etags.iter().any(|etag| etag == "*") { Self::Any } else { Self::These(etags) }
    }

    /// Whether an existing object's `etag` (without quotes) is in the list.
    pub fn matches(&self, etag: &str) -> bool {
        match self {
            Self::Any => true,
            Self::These(etags) => etags.iter().any(|listed| listed == etag),
        }
    }
}

/// An etag without its quotes, `&quot;` entities and weakness mark.
pub fn strip_etag_quotes(text: &str) -> &str {
    let text = text.trim();
    let text = text.strip_prefix("W/").unwrap_or(text);
    let text = text.strip_prefix("&quot;").unwrap_or(text);
    let text = text.strip_suffix("&quot;").unwrap_or(text);
    text.trim_matches('"')
}

/// What a read demands of the object, and a copy of its source.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReadConditions {
    pub if_match: Option<EtagList>,
    pub if_none_match: Option<EtagList>,
    pub if_modified_since: Option<Timestamp>,
    pub if_unmodified_since: Option<Timestamp>,
}

/// What the conditions of a read decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Serve the object.
    Proceed,
    /// 304, without a body.
    NotModified,
    /// 412.
    PreconditionFailed,
}

/// Decides the conditions of GET and HEAD against an existing object. `etag` has no quotes.
pub fn evaluate_read_conditions(etag: &str, last_modified: Timestamp, conditions: &ReadConditions) -> Verdict {
    let modified_since = |date: Timestamp| last_modified.as_seconds() > date.as_seconds();
    match (&conditions.if_match, conditions.if_unmodified_since) {
        (Some(etags), _) if !etags.matches(etag) => return Verdict::PreconditionFailed,
        (None, Some(date)) if modified_since(date) => return Verdict::PreconditionFailed,
        _ => {}
    }
    match (&conditions.if_none_match, conditions.if_modified_since) {
        (Some(etags), _) if etags.matches(etag) => Verdict::NotModified,
        (None, Some(date)) if !modified_since(date) => Verdict::NotModified,
        _ => Verdict::Proceed,
    }
}

/// Decides the `x-amz-copy-source-if-*` conditions: true when the copy may proceed, else it is 412 in every case.
pub fn copy_source_conditions_hold(etag: &str, last_modified: Timestamp, conditions: &ReadConditions) -> bool {
    evaluate_read_conditions(etag, last_modified, conditions) == Verdict::Proceed
}

/// What a write demands of the key's current version. To be checked in the same atomic step as the write.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum WriteCondition {
    #[default]
    None,
    /// `If-None-Match: *`: 412 when the key has a current version that is not a delete marker.
    IfAbsent,
    /// `If-Match: <etag>`, without quotes: 404 `NoSuchKey` when absent, 412 when the current etag is another.
    IfMatch(String),
    /// `If-Match: *`: 404 `NoSuchKey` when absent.
    IfExists,
}

#[cfg(test)]
mod tests {
    use super::*;

    const ETAG: &str = "abc";
    const MODIFIED: Timestamp = Timestamp::from_millis(1_000_500);

    /// What a condition says about the object: absent, true or false.
    const STATES: [Option<bool>; 3] = [None, Some(true), Some(false)];

    fn conditions(m: Option<bool>, um: Option<bool>, nm: Option<bool>, ms: Option<bool>) -> ReadConditions {
        let list = |matches| EtagList::These(vec!["other".to_owned(), if matches { ETAG } else { "xyz" }.to_owned()]);
        let (before, after) = (Timestamp::from_millis(999_000), Timestamp::from_millis(1_001_000));
        ReadConditions {
            if_match: m.map(list),
            if_unmodified_since: um.map(|holds| if holds { after } else { before }),
            // A condition holds when the etag is *not* among those listed.
            if_none_match: nm.map(|holds| list(!holds)),
            if_modified_since: ms.map(|holds| if holds { before } else { after }),
        }
    }

    /// RFC 9110 section 13.2.2, step by step, as it is written there.
    fn rfc_9110(m: Option<bool>, um: Option<bool>, nm: Option<bool>, ms: Option<bool>) -> Verdict {
        if let Some(holds) = m {
            if !holds {
                return Verdict::PreconditionFailed;
            }
        } else if um == Some(false) {
            return Verdict::PreconditionFailed;
        }
        if let Some(holds) = nm {
            if !holds {
                return Verdict::NotModified;
            }
        } else if ms == Some(false) {
            return Verdict::NotModified;
        }
        Verdict::Proceed
    }

    #[test]
    fn all_81_combinations_follow_rfc_9110() {
        let mut seen = 0;
        for m in STATES {
            for um in STATES {
                for nm in STATES {
                    for ms in STATES {
                        let conditions = conditions(m, um, nm, ms);
                        let verdict = evaluate_read_conditions(ETAG, MODIFIED, &conditions);
                        assert_eq!(verdict, rfc_9110(m, um, nm, ms), "{m:?} {um:?} {nm:?} {ms:?}");
                        let holds = copy_source_conditions_hold(ETAG, MODIFIED, &conditions);
                        assert_eq!(holds, verdict == Verdict::Proceed);
                        seen += 1;
                    }
                }
            }
        }
        assert_eq!(seen, 81);
    }

    #[test]
    fn the_cases_that_implementations_get_wrong() {
        let check = |m, um, nm, ms, expected| {
            assert_eq!(evaluate_read_conditions(ETAG, MODIFIED, &conditions(m, um, nm, ms)), expected);
        };
        let (yes, no) = (Some(true), Some(false));
        check(yes, no, None, None, Verdict::Proceed);
        check(None, None, no, yes, Verdict::NotModified);
        check(None, None, yes, no, Verdict::Proceed);
        check(no, None, no, None, Verdict::PreconditionFailed);
        check(None, no, no, None, Verdict::PreconditionFailed);
    }

    #[test]
    fn dates_compare_at_whole_seconds() {
        let at = |if_modified_since, if_unmodified_since| ReadConditions {
            if_modified_since,
            if_unmodified_since,
            ..ReadConditions::default()
        };
        let same_second = Some(Timestamp::from_millis(1_000_000));
        assert_eq!(evaluate_read_conditions(ETAG, MODIFIED, &at(same_second, None)), Verdict::NotModified);
        assert_eq!(evaluate_read_conditions(ETAG, MODIFIED, &at(None, same_second)), Verdict::Proceed);
    }

    #[test]
    fn etags_are_read_with_and_without_quotes() {
        let check = |text: &str, etags: &[&str]| {
            let expected = EtagList::These(etags.iter().map(|etag| (*etag).to_owned()).collect());
            assert_eq!(EtagList::parse(text), expected, "{text}");
        };
        check("\"abc\"", &["abc"]);
        check("abc", &["abc"]);
        check("W/\"abc\"", &["abc"]);
        check("&quot;abc&quot;", &["abc"]);
        check("\"a\", b ,,\"c-2\"", &["a", "b", "c-2"]);
        check("", &[]);
        assert_eq!(EtagList::parse("*"), EtagList::Any);
        assert_eq!(EtagList::parse("\"*\""), EtagList::Any);
        assert!(EtagList::Any.matches(ETAG));
    }
}
