//! `${VAR}`, `${VAR:-default}` and `${VAR:?message}` inside a value. Never structure: what a
//! variable holds stays one value, whatever characters it has.

use std::{fmt, fs, io, io::Read, path::Path};

/// The largest password file read.
const MAX_SECRET_FILE: u64 = 64 * 1024;

/// What a configuration may ask of the world outside it: variables and password files.
#[derive(Clone, Copy)]
pub struct Env<'a> {
    /// A variable's value; `None` when it is not set.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    /// A password file's text.
    pub file: &'a dyn Fn(&Path) -> io::Result<String>,
    /// Whether the files of certificates and keys are looked into.
    pub certificates: bool,
}

impl Env<'static> {
    /// This process's variables and the file system.
    pub fn process() -> Self {
        Self { variable: &|name| std::env::var(name).ok(), file: &read, certificates: true }
    }

    /// Nothing outside: no variable is set, no file exists, and certificates are taken on trust.
    pub fn empty() -> Self {
        Self {
            variable: &|_| None,
            file: &|_| Err(io::ErrorKind::NotFound.into()),
            certificates: false,
        }
    }
}

impl fmt::Debug for Env<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Env")
    }
}

/// `text` with its variables replaced, or everything that is wrong with them. `$${` stands for a
/// plain `${`. As in the shell, an empty variable takes the default and gets the message.
pub(super) fn substitute(text: &str, env: &Env<'_>) -> Result<String, Vec<String>> {
    let mut result = String::with_capacity(text.len());
    let mut wrong = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        if let Some(plain) = before.strip_suffix('$') {
            result.push_str(plain);
            result.push_str("${");
            rest = after;
            continue;
        }
        result.push_str(before);
        let Some((inside, after)) = after.split_once('}') else {
            wrong.push("`${` has no closing `}`; write `$${` for a plain one".to_owned());
            rest = "";
            break;
        };
        match variable(inside, env) {
            Ok(value) => result.push_str(&value),
            Err(message) => wrong.push(message),
        }
        rest = after;
    }
    result.push_str(rest);
    if wrong.is_empty() { Ok(result) } else { Err(wrong) }
}

fn variable(inside: &str, env: &Env<'_>) -> Result<String, String> {
    let (name, otherwise) = match inside.split_once(':') {
        Some((name, otherwise)) => (name, Some(otherwise)),
        None => (inside, None),
    };
    let letters = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if !name.chars().all(letters) || !name.starts_with(|c: char| letters(c) && !c.is_numeric()) {
        return Err(format!("'{name}' is not the name of a variable"));
    }
    let value = (env.variable)(name);
    let Some(otherwise) = otherwise else {
        return value.ok_or_else(|| {
            format!("the variable {name} is not set; set it or write ${{{name}:-default}}")
        });
    };
    let value = value.filter(|value| !value.is_empty());
    if let Some(default) = otherwise.strip_prefix('-') {
        return Ok(value.unwrap_or_else(|| default.to_owned()));
    }
    match otherwise.strip_prefix('?') {
        Some("") => value.ok_or_else(|| format!("the variable {name} is not set")),
        Some(why) => value.ok_or_else(|| format!("the variable {name} is not set: {why}")),
        None => Err(format!(
            "'${{{inside}}}': after the colon comes -default or ?message: ${{{name}:-default}}"
        )),
    }
}

fn read(path: &Path) -> io::Result<String> {
    // A pipe or a device could block for ever or never end.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut text = String::new();
    fs::File::open(path)?.take(MAX_SECRET_FILE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_SECRET_FILE {
        return Err(io::Error::other("it is larger than 64KiB"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(text: &str) -> Result<String, Vec<String>> {
        let variable = |name: &str| match name {
            "HOST" => Some("10.0.0.1".to_owned()),
            "NASTY" => Some("a}, b: [${HOST}".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        substitute(text, &Env { variable: &variable, ..Env::empty() })
    }

    #[test]
    fn variables_are_replaced_inside_a_value() {
        for (text, expected) in [
            ("plain $ text {", "plain $ text {"),
            ("${HOST}:6379", "10.0.0.1:6379"),
            ("${HOST}${HOST}", "10.0.0.110.0.0.1"),
            ("${NONE:-6379}", "6379"),
            ("${NONE:-}", ""),
            ("${EMPTY}", ""),
            ("${EMPTY:-x}", "x"),
            ("${HOST:-x}", "10.0.0.1"),
            ("${HOST:?needed}", "10.0.0.1"),
            ("$${HOST}", "${HOST}"),
            ("${NASTY}", "a}, b: [${HOST}"),
        ] {
            assert_eq!(with(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn every_missing_variable_is_told() {
        let wrong = with("${A} ${B:?give me B} ${HOST:x} ${1} ${").unwrap_err();
        for (message, part) in wrong.iter().zip([
            "the variable A is not set; set it or write ${A:-default}",
            "the variable B is not set: give me B",
            "after the colon",
            "'1' is not the name",
            "no closing",
        ]) {
            assert!(message.contains(part), "{message}");
        }
        assert_eq!(wrong.len(), 5);
    }

    #[test]
    fn a_password_file_must_be_a_small_regular_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        fs::write(&path, "x\n").unwrap();
        assert_eq!(read(&path).unwrap(), "x\n");
        fs::write(&path, "x".repeat(65_537)).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("64KiB"));
        assert!(read(folder.path()).unwrap_err().to_string().contains("regular"));
    }
}
