//! `regexp`: whether a text fits an expression, and the parts that do.

use super::super::number;
use super::super::regex::Regex;
use super::super::run::{Run, Stop};
use super::super::status::Status;
use super::options::{Dashes, NotRun, Spec, parse};

const OPTIONS: [Spec; 1] = [Spec::value("set", 's')];

/// `regexp`.
pub(super) fn regexp(run: &mut Run<'_>, arguments: &[String]) -> Result<Status, Stop> {
    let given = match parse(&OPTIONS, Dashes::Strict, arguments) {
        Ok(given) => given,
        Err(NotRun(status)) => return Ok(status),
    };
    let [expression, text] = &given.words[..] else { return Ok(Status::BAD_ARGUMENT) };
    let Some(regex) = Regex::new(expression) else {
        run.warn(expression, "is a regular expression that is not understood");
        return Ok(Status::FALSE);
    };
    let text: Vec<char> = text.chars().collect();
    run.spend(regex.cost(text.len()) / 8)?;
    let Some(groups) = regex.find(&text) else { return Ok(Status::FALSE) };
    for set in given.values("set") {
        let (number, variable) = match set.split_once(':') {
            None => (1, set),
            Some((number, variable)) => match number::whole(number) {
                Ok(number) => (number as usize, variable),
                Err(_) => return Ok(Status::BAD_ARGUMENT),
            },
        };
        match groups.get(number).copied().flatten() {
            Some((start, end)) => {
                let part: String = text[start..end].iter().collect();
                run.environment.set(variable, &part);
            }
            None => run.environment.unset(variable),
        }
    }
    Ok(Status::SUCCESS)
}
