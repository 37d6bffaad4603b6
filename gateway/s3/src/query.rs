//! The query of a request, decoded once.

use percent_encoding::percent_decode;

use crate::error::{S3Error, S3ErrorCode};

/// One `name=value` or bare `name`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Parameter {
    name: String,
    /// `None` when there was no `=`.
    value: Option<String>,
}

/// The decoded query, in the order it came.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Query(Vec<Parameter>);

impl Query {
    /// `InvalidURI` when a name or value is not UTF-8.
    pub fn parse(text: &str) -> Result<Self, S3Error> {
        let parameters = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = match pair.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (pair, None),
            };
            Ok(Parameter { name: decode_form(name)?, value: value.map(decode_form).transpose()? })
        });
        Ok(Self(parameters.collect::<Result<_, S3Error>>()?))
    }

    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|parameter| parameter.name == name)
    }

    /// The value of a parameter, empty for a bare name. Given twice it is `InvalidArgument`: nobody knows which one counts.
    pub fn get(&self, name: &str) -> Result<Option<&str>, S3Error> {
        let mut values = self.0.iter().filter(|parameter| parameter.name == name);
        let Some(first) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            let message = format!("The query parameter {name} was given more than once");
            return Err(S3Error::with_message(S3ErrorCode::InvalidArgument, message));
        }
        Ok(Some(first.value.as_deref().unwrap_or("")))
    }

    /// A value that is not empty.
    pub fn text(&self, name: &str) -> Result<Option<String>, S3Error> {
        Ok(self.get(name)?.filter(|value| !value.is_empty()).map(str::to_owned))
    }

    /// Every name, and whether it came with a value that is not empty.
    pub fn names(&self) -> impl Iterator<Item = (&str, bool)> {
        self.0.iter().map(|parameter| (parameter.name.as_str(), parameter.value.as_deref().is_some_and(|v| !v.is_empty())))
    }
}

/// Decodes `application/x-www-form-urlencoded` text: `+` is a space.
pub(crate) fn decode_form(text: &str) -> Result<String, S3Error> {
    let spaced = text.replace('+', " ");
    percent_decode(spaced.as_bytes()).decode_utf8().map(|text| text.into_owned()).map_err(|_| S3ErrorCode::InvalidURI.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_once_and_must_be_unique() {
        let query = Query::parse("prefix=a+b%2Bc%252F&uploads&max-keys=&x=1&x=2").unwrap();
        assert_eq!(query.get("prefix").unwrap(), Some("a b+c%2F"));
        assert_eq!(query.get("uploads").unwrap(), Some(""));
        assert_eq!(query.text("max-keys").unwrap(), None);
        assert!(query.get("x").is_err());
        assert_eq!(query.get("y").unwrap(), None);
        assert_eq!(Query::parse("a=%ff").unwrap_err().code, S3ErrorCode::InvalidURI);
    }
}
