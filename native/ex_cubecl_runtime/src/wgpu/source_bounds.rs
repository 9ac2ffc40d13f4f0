//! Limits on the size, nesting and expansion of a WGSL text. Shader compilers recurse for each level of nesting and
//! inline what is used repeatedly, so both are bounded before a compiler sees the text: in one pass over its tokens,
//! which is not recursive.

#[cfg(test)]
mod tests;

use std::collections::HashMap;

/// The stack of the compiling thread is large enough for a text of this length that is a single expression.
pub const MAX_BYTES: usize = 128 << 10;
/// naga's parser itself has a limit of 256 recursion steps, of which a bracket takes up to two.
const MAX_NESTING: usize = 100;
/// The largest number of operators, calls and accesses on a path from the root of an expression to a leaf.
const MAX_CHAIN: usize = 1_000;
/// The longest chain of functions that call one another, or of constants and types that use others.
const MAX_LINKS: u32 = 250;
/// The largest number of tokens after each use of a function or a constant is replaced by its definition.
const MAX_EXPANDED: u64 = 200_000;

type Refusal = String;

/// The state inside one pair of brackets: the operators of the open expression, and open angle brackets.
#[derive(Default, Clone, Copy)]
struct Level {
    operators: usize,
    /// `<` without a matching `>`: template lists, or comparisons, which are counted as template lists.
    angles: usize,
    /// A block has ended: the statement ends with the next token, unless that is `else`.
    block_ended: bool,
}

/// One declaration of the module.
#[derive(Default)]
struct Declaration<'a> {
    name: Option<&'a str>,
    tokens: u64,
    words: Vec<&'a str>,
}

/// Refuses a text that a shader compiler could not process within bounded time and stack.
pub fn check(text: &str) -> Result<(), Refusal> {
    if text.len() > MAX_BYTES {
        return Err(format!(
            "the source has {} bytes: at most {MAX_BYTES}",
            text.len()
        ));
    }
    let mut scan = Scan {
        levels: vec![Level::default()],
        depth: 0,
        angles: 0,
        line: 1,
        declarations: vec![Declaration::default()],
        after_dot: false,
    };
    let mut tokens = Tokens {
        rest: text,
        line: 1,
    };
    while let Some(token) = tokens.next() {
        scan.line = tokens.line;
        scan.token(token)?;
    }
    expansion(&scan.declarations)
}

struct Scan<'a> {
    levels: Vec<Level>,
    /// The number of operators of all levels plus the number of levels.
    depth: usize,
    /// The number of open angle brackets of all levels.
    angles: usize,
    line: usize,
    declarations: Vec<Declaration<'a>>,
    after_dot: bool,
}

impl<'a> Scan<'a> {
    fn token(&mut self, token: Token<'a>) -> Result<(), Refusal> {
        if token == Token::Word("else") {
            self.top().block_ended = false;
        } else if self.top().block_ended {
            self.statement_ended();
        }
        self.declare(token);
        self.after_dot = token == Token::Mark('.');
        match token {
            Token::Word(_) | Token::Number => {}
            Token::Mark('(' | '[' | '{') => {
                self.levels.push(Level::default());
                self.depth += 1;
            }
            Token::Mark(closing @ (')' | ']' | '}')) => self.close(closing),
            Token::Mark(',') => self.operand_ended(),
            Token::Mark(';') => self.statement_ended(),
            Token::Mark('<') => {
                self.top().angles += 1;
                self.angles += 1;
            }
            Token::Mark('>') if self.top().angles > 0 => {
                self.top().angles -= 1;
                self.angles -= 1;
                self.top().operators += 1;
                self.depth += 1;
            }
            Token::Mark(':' | '@') => {}
            Token::Mark(_) => {
                self.top().operators += 1;
                self.depth += 1;
            }
        }
        if self.levels.len() - 1 + self.angles > MAX_NESTING {
            return Err(format!(
                "line {}: nested deeper than {MAX_NESTING} levels: use variables or functions",
                self.line
            ));
        }
        if self.depth > MAX_CHAIN {
            Err(format!(
                "line {}: an expression of more than {MAX_CHAIN} operators: split it by variables",
                self.line
            ))
        } else {
            Ok(())
        }
    }

    fn top(&mut self) -> &mut Level {
        let last = self.levels.len() - 1;
        &mut self.levels[last]
    }

    fn operand_ended(&mut self) {
        self.depth -= std::mem::take(&mut self.top().operators);
    }

    fn statement_ended(&mut self) {
        self.operand_ended();
        self.angles -= std::mem::take(&mut self.top().angles);
        self.top().block_ended = false;
    }

    /// An unmatched closing bracket is left to the parser, which refuses it.
    fn close(&mut self, closing: char) {
        if self.levels.len() > 1 {
            self.statement_ended();
            self.levels.pop();
            self.depth -= 1;
        }
        // What follows is applied to the bracketed expression, or, after a block, is its next case.
        self.top().operators += 1;
        self.depth += 1;
        self.top().block_ended = closing == '}';
        if closing == '}' && self.levels.len() == 1 {
            self.declarations.push(Declaration::default());
        }
    }

    /// Collects the words of each declaration of the module.
    fn declare(&mut self, token: Token<'a>) {
        let outside = self.levels.len() == 1;
        let last = self.declarations.len() - 1;
        let current = &mut self.declarations[last];
        current.tokens += 1;
        match token {
            Token::Word(word) if !self.after_dot => {
                let names = ["fn", "const", "override", "alias", "struct"];
                let before = current.words.last();
                if outside && current.name.is_none() && before.is_some_and(|it| names.contains(it))
                {
                    current.name = Some(word);
                } else {
                    current.words.push(word);
                }
            }
            Token::Mark(';') if outside => self.declarations.push(Declaration::default()),
            _ => {}
        }
    }
}

/// Checks the size of each declaration including all that it uses, and the length of its chain of uses.
fn expansion(declarations: &[Declaration<'_>]) -> Result<(), Refusal> {
    let named = declarations.iter().enumerate();
    let named: HashMap<_, _> = named
        .filter_map(|(at, declaration)| Some((declaration.name?, at)))
        .collect();
    let uses = |at: usize| {
        let words = declarations[at].words.iter();
        words.filter_map(|word| named.get(word).copied())
    };
    // Size and links of each declaration, once computed. A declaration that is reached again while it is being
    // computed uses itself, which the parser refuses.
    let mut known: Vec<Option<(u64, u32)>> = vec![None; declarations.len()];
    let mut entered = vec![false; declarations.len()];
    for first in 0..declarations.len() {
        let mut waiting = vec![first];
        while let Some(at) = waiting.last().copied() {
            if known[at].is_some() {
                waiting.pop();
                continue;
            }
            if !entered[at] {
                entered[at] = true;
                waiting.extend(uses(at).filter(|used| !entered[*used]));
                continue;
            }
            let (mut tokens, mut links) = (declarations[at].tokens, 0);
            for (more, deeper) in uses(at).filter_map(|used| known[used]) {
                tokens = tokens.saturating_add(more);
                links = links.max(deeper + 1);
            }
            let name = declarations[at].name.unwrap_or("a declaration");
            if tokens > MAX_EXPANDED {
                return Err(format!(
                    "{name} has more than {MAX_EXPANDED} tokens once all that it uses is written out"
                ));
            }
            if links > MAX_LINKS {
                return Err(format!(
                    "{name} goes through more than {MAX_LINKS} other declarations, one in the other"
                ));
            }
            known[at] = Some((tokens, links));
            waiting.pop();
        }
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq)]
enum Token<'a> {
    Word(&'a str),
    Number,
    Mark(char),
}

/// The tokens of a text, split as naga does as far as this check needs it: comments begin and end at the same places.
struct Tokens<'a> {
    rest: &'a str,
    line: usize,
}

impl<'a> Tokens<'a> {
    fn next(&mut self) -> Option<Token<'a>> {
        loop {
            let rest = self.rest;
            let first = rest.chars().next()?;
            let second = rest[first.len_utf8()..].chars().next();
            match (first, second) {
                ('/', Some('/')) => {
                    let end = rest.find(ends_line).unwrap_or(rest.len());
                    self.take(end);
                }
                ('/', Some('*')) => {
                    let end = comment_end(rest);
                    self.take(end);
                }
                // An arrow or a two-character operator.
                ('-', Some('>')) => {
                    self.take(2);
                    return Some(Token::Mark(':'));
                }
                ('&', Some('&'))
                | ('|', Some('|'))
                | ('<', Some('<'))
                | ('=' | '!' | '<', Some('=')) => {
                    self.take(2);
                    return Some(Token::Mark('+'));
                }
                _ if is_blank(first) => {
                    let end = rest.find(|c| !is_blank(c)).unwrap_or(rest.len());
                    self.take(end);
                }
                _ if first.is_ascii_digit() => {
                    let part = |c: char| c.is_ascii_alphanumeric() || c == '.';
                    let end = rest.find(|c| !part(c)).unwrap_or(rest.len());
                    self.take(end);
                    return Some(Token::Number);
                }
                _ if is_word(first) => {
                    let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
                    return Some(Token::Word(self.take(end)));
                }
                _ => {
                    self.take(first.len_utf8());
                    return Some(Token::Mark(first));
                }
            }
        }
    }

    fn take(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(bytes);
        self.line += taken.matches('\n').count();
        self.rest = rest;
        taken
    }
}

fn ends_line(c: char) -> bool {
    matches!(c, '\u{a}'..='\u{d}' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

fn is_blank(c: char) -> bool {
    ends_line(c) || matches!(c, ' ' | '\t' | '\u{200e}' | '\u{200f}')
}

fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric() || (!c.is_ascii() && !is_blank(c))
}

/// Comments nest.
fn comment_end(text: &str) -> usize {
    let mut chars = text.char_indices().skip(2);
    let mut before = chars.next().map(|it| it.1);
    let mut depth = 1;
    for (at, c) in chars {
        match (before, c) {
            (Some('*'), '/') => {
                depth -= 1;
                before = None;
                if depth == 0 {
                    return at + 1;
                }
            }
            (Some('/'), '*') => {
                depth += 1;
                before = None;
            }
            _ => before = Some(c),
        }
    }
    text.len()
}
