//! Redis's patterns of channels and keys, as util.c's `stringmatchlen` reads them. Not those of
//! `COMMAND LIST`, which know no classes.

/// Whether `text` fits `pattern`: `*`, `?`, `[a-z]`, `[^x]`, and `\` before a character that is to
/// mean itself. Linear in the product of their lengths: a hostile pattern costs no more.
pub(super) fn fits(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t, mut star) = (0, 0, None);
    while let Some(byte) = text.get(t) {
        let rest = pattern.get(p..).unwrap_or_default();
        if rest.first() == Some(&b'*') {
            star = Some((p + 1, t));
            p += 1;
        } else if let Some(taken) = one(rest, *byte) {
            (p, t) = (p + taken, t + 1);
        } else if let Some((after, from)) = star {
            star = Some((after, from + 1));
            (p, t) = (after, from + 1);
        } else {
            return false;
        }
    }
    pattern.get(p..).is_some_and(|rest| rest.iter().all(|byte| *byte == b'*'))
}

/// How many bytes of `pattern` stand for one character, if `byte` is such a one.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern {
        [b'?', ..] => Some(1),
        [b'[', class @ ..] => {
            let (fits, len) = class_fits(class, byte);
            fits.then_some(1 + len)
        }
        [b'\\', escaped, ..] => (*escaped == byte).then_some(2),
        [plain, ..] => (*plain == byte).then_some(1),
        [] => None,
    }
}

/// Whether a class holds `byte`, and its length with the `]`; one that is not closed ends with the
/// pattern.
fn class_fits(class: &[u8], byte: u8) -> (bool, usize) {
    let negated = class.first() == Some(&b'^');
    let mut at = usize::from(negated);
    let mut found = false;
    loop {
        at += match class.get(at..).unwrap_or_default() {
            [] => break,
            [b']', ..] => {
                at += 1;
                break;
            }
            [b'\\', escaped, ..] => {
                found |= *escaped == byte;
                2
            }
            [from, b'-', to, ..] => {
                found |= (*from.min(to)..=*from.max(to)).contains(&byte);
                3
            }
            [plain, ..] => {
                found |= *plain == byte;
                1
            }
        };
    }
    (found != negated, at)
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn patterns_fit_as_in_redis() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("*", "", true),
            ("**a*", "bca", true),
            ("h?llo", "hello", true),
            ("h?llo", "hllo", false),
            ("h[ae]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[a-c]llo", "hbllo", true),
            ("h[c-a]llo", "hbllo", true),
            ("h[a-c]llo", "hdllo", false),
            ("\\*", "*", true),
            ("\\*", "x", false),
            ("a\\", "a\\", true),
            ("[\\]]", "]", true),
            ("[]", "]", false),
            ("[^]", "]", true),
            ("[abc", "b", true),
            ("[abc", "bx", false),
            ("__key*__:*", "__keyspace@0__:foo", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
        ] {
            assert_eq!(fits(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }

    /// The server's own matcher takes seconds for these.
    #[test]
    fn a_hostile_pattern_is_answered_at_once() {
        let pattern = "*a".repeat(1_000);
        assert!(!fits(pattern.as_bytes(), "a".repeat(999).as_bytes()));
        assert!(fits(pattern.as_bytes(), "a".repeat(1_000).as_bytes()));
    }
}
