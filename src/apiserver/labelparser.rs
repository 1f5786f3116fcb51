//! The grammar of label selectors: `app, !gone, tier in (a, b), n > 3`. Pure.
//!
//! The order of the checks and the words about what was found are those of Kubernetes' own parser.
use std::iter::Peekable;
use std::str::CharIndices;

use super::names::{label_value_problem, selector_key_problem};
use super::selector::Requirement;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Identifier,
    In,
    NotIn,
    Equals,
    NotEquals,
    Not,
    Above,
    Below,
    Comma,
    Open,
    Close,
    Unknown,
    End,
}

fn is_special(c: char) -> bool {
    matches!(c, '=' | '!' | '(' | ')' | ',' | '>' | '<')
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

fn symbol(text: &str) -> Option<Token> {
    Some(match text {
        "=" | "==" => Token::Equals,
        "!=" => Token::NotEquals,
        "!" => Token::Not,
        ">" => Token::Above,
        "<" => Token::Below,
        "," => Token::Comma,
        "(" => Token::Open,
        ")" => Token::Close,
        _ => return None,
    })
}

type Tokens<'a> = Vec<(Token, &'a str)>;

fn scan(text: &str) -> Tokens<'_> {
    let mut tokens = Vec::new();
    let mut chars = text.char_indices().peekable();
    while let Some(&(start, c)) = chars.peek() {
        if is_space(c) {
            chars.next();
        } else if is_special(c) {
            tokens.push(special(text, start, &mut chars));
        } else {
            let end = skip(text, &mut chars, |c| !is_special(c) && !is_space(c));
            let word = &text[start..end];
            let token = match word {
                "in" => Token::In,
                "notin" => Token::NotIn,
                _ => Token::Identifier,
            };
            tokens.push((token, word));
        }
    }
    tokens.push((Token::End, ""));
    tokens
}

fn skip(text: &str, chars: &mut Peekable<CharIndices<'_>>, wanted: impl Fn(char) -> bool) -> usize {
    while chars.next_if(|(_, c)| wanted(*c)).is_some() {}
    chars.peek().map_or(text.len(), |(at, _)| *at)
}

/// The longest symbol that stands here.
fn special<'a>(text: &'a str, start: usize, chars: &mut Peekable<CharIndices<'_>>) -> (Token, &'a str) {
    let mut found = None;
    while let Some(&(at, c)) = chars.peek().filter(|(_, c)| is_special(*c)) {
        let word = &text[start..at + c.len_utf8()];
        match symbol(word) {
            Some(token) => found = Some((token, word)),
            None if found.is_some() => break,
            None => {}
        }
        chars.next();
    }
    found.unwrap_or((Token::Unknown, &text[start..start + 1]))
}

struct Parser<'a> {
    tokens: Tokens<'a>,
    at: usize,
}

/// Every requirement, in the order of the text. The error is a sentence about the first thing at fault.
pub fn parse(text: &str) -> Result<Vec<(String, Requirement)>, String> {
    let mut parser = Parser { tokens: scan(text), at: 0 };
    let mut requirements = Vec::new();
    loop {
        match parser.peek() {
            (Token::End, _) => return Ok(requirements),
            (Token::Identifier | Token::Not, _) => {}
            (_, found) => return Err(format!("found '{found}', expected: !, identifier, or 'end of string'")),
        }
        requirements.push(parser.requirement().map_err(|words| format!("unable to parse requirement: {words}"))?);
        match parser.take() {
            (Token::End, _) => return Ok(requirements),
            (Token::Comma, _) => match parser.peek() {
                (Token::Identifier | Token::Not, _) => {}
                (_, found) => return Err(format!("found '{found}', expected: identifier after ','")),
            },
            (_, found) => return Err(format!("found '{found}', expected: ',' or 'end of string'")),
        }
    }
}

impl<'a> Parser<'a> {
    /// The next token; where a name or value may stand, `in` and `notin` are words like others.
    fn peek(&self) -> (Token, &'a str) {
        match self.raw() {
            (Token::In | Token::NotIn, word) => (Token::Identifier, word),
            other => other,
        }
    }
    fn raw(&self) -> (Token, &'a str) {
        self.tokens.get(self.at).copied().unwrap_or((Token::End, ""))
    }
    fn take(&mut self) -> (Token, &'a str) {
        let token = self.peek();
        self.at += 1;
        token
    }

    fn requirement(&mut self) -> Result<(String, Requirement), String> {
        let mut token = self.take();
        let negated = token.0 == Token::Not;
        if negated {
            token = self.take();
        }
        let (Token::Identifier, key) = token else { return Err(format!("found '{}', expected: identifier", token.1)) };
        if let Some(words) = selector_key_problem(key) {
            return Err(format!("<nil>: Invalid value: {}: {words}", serde_json::Value::from(key)));
        }
        if negated || matches!(self.peek().0, Token::End | Token::Comma) {
            return Ok((key.to_owned(), Requirement::Exists(!negated)));
        }
        let (operator, found) = self.raw();
        self.at += 1;
        let values = match operator {
            Token::In | Token::NotIn => self.values()?,
            Token::Equals | Token::NotEquals | Token::Above | Token::Below => vec![self.value()?],
            _ => return Err(format!("found '{found}', expected: in, notin, =, ==, !=, gt, lt")),
        };
        checked(key, operator, values)
    }

    fn value(&mut self) -> Result<String, String> {
        if matches!(self.peek().0, Token::End | Token::Comma) {
            return Ok(String::new());
        }
        match self.take() {
            (Token::Identifier, word) => Ok(word.to_owned()),
            (_, found) => Err(format!("found '{found}', expected: identifier")),
        }
    }

    /// `(a, b)`; nothing between two commas is the empty value.
    fn values(&mut self) -> Result<Vec<String>, String> {
        match self.take() {
            (Token::Open, _) => {}
            (_, found) => return Err(format!("found '{found}' expected: '('")),
        }
        let mut values = Vec::new();
        match self.peek() {
            (Token::Close, _) => {
                self.take();
                return Ok(vec![String::new()]);
            }
            (Token::Identifier | Token::Comma, _) => {}
            (_, found) => return Err(format!("found '{found}', expected: ',', ')' or identifier")),
        }
        loop {
            match self.take() {
                (Token::Identifier, word) => {
                    values.push(word.to_owned());
                    match self.peek() {
                        (Token::Comma, _) => {}
                        (Token::Close, _) => break,
                        (_, found) => return Err(format!("found '{found}', expected: ',' or ')'")),
                    }
                }
                (Token::Comma, _) => {
                    let empty = values.is_empty() || matches!(self.peek().0, Token::Close | Token::Comma);
                    if empty {
                        values.push(String::new());
                    }
                    match self.peek().0 {
                        Token::Close => break,
                        Token::Comma => self.at += 1,
                        _ => {}
                    }
                }
                (_, found) => return Err(format!("found '{found}', expected: ',', or identifier")),
            }
        }
        self.take();
        values.sort_unstable();
        values.dedup();
        Ok(values)
    }
}

/// The requirement, once its values are ones that a label can have.
fn checked(key: &str, operator: Token, values: Vec<String>) -> Result<(String, Requirement), String> {
    let mut wrong = Vec::new();
    let mut number = 0;
    for (index, value) in values.iter().enumerate() {
        let shown = serde_json::Value::from(value.as_str());
        if matches!(operator, Token::Above | Token::Below) {
            match value.parse::<i64>() {
                Ok(parsed) => number = parsed,
                Err(_) => wrong.push(format!(
                    "values[{index}]: Invalid value: {shown}: for 'Gt', 'Lt' operators, the value must be an integer"
                )),
            }
        }
        if let Some(words) = label_value_problem(value) {
            wrong.push(format!("values[{index}][{key}]: Invalid value: {shown}: {words}"));
        }
    }
    match wrong.as_slice() {
        [] => {}
        [one] => return Err(one.clone()),
        several => return Err(format!("[{}]", several.join(", "))),
    }
    let requirement = match operator {
        Token::NotIn | Token::NotEquals => Requirement::NoneOf(values),
        Token::Above => Requirement::Above(number),
        Token::Below => Requirement::Below(number),
        _ => Requirement::OneOf(values),
    };
    Ok((key.to_owned(), requirement))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_values_may_have_holes() {
        let values = |text: &str| match parse(text).unwrap().remove(0).1 {
            Requirement::OneOf(values) => values,
            other => panic!("{other:?}"),
        };
        assert_eq!(values("a in ()"), [""]);
        assert_eq!(values("a in (,)"), [""]);
        assert_eq!(values("a in (x,)"), ["", "x"]);
        assert_eq!(values("a in (x,,y)"), ["", "x", "y"]);
        assert_eq!(values("in in (in, notin)"), ["in", "notin"]);
    }

    #[test]
    fn the_first_fault_is_told() {
        let refused = |text: &str| parse(text).unwrap_err();
        assert_eq!(refused(","), "found ',', expected: !, identifier, or 'end of string'");
        assert_eq!(refused("!"), "unable to parse requirement: found '', expected: identifier");
        assert_eq!(refused("a=b c"), "found 'c', expected: ',' or 'end of string'");
        assert_eq!(refused("a in x"), "unable to parse requirement: found 'x' expected: '('");
        assert_eq!(refused("a==="), "unable to parse requirement: found '=', expected: identifier");
        assert!(
            refused("a=@")
                .starts_with("unable to parse requirement: values[0][a]: Invalid value: \"@\": a valid label")
        );
        assert!(refused("a>x").contains("the value must be an integer"));
    }
}
