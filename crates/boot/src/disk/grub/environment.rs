//! Variables, and the menu that belongs to each set of them.

use std::collections::BTreeMap;

use super::menu::MenuEntry;

#[derive(Clone, Default, Debug)]
struct Variable {
    value: String,
    /// A new set begins with it.
    exported: bool,
}

/// The variables and the menu of a configuration or of a submenu.
#[derive(Default, Debug)]
struct Context {
    variables: BTreeMap<String, Variable>,
    menu: Vec<MenuEntry>,
}

/// The contexts, each within the one before it.
#[derive(Debug)]
pub(super) struct Environment {
    current: Context,
    outer: Vec<Context>,
}

impl Environment {
    /// One context, all of whose variables are exported.
    pub(super) fn new(variables: impl IntoIterator<Item = (&'static str, String)>) -> Self {
        let exported =
            |(name, value): (&str, String)| (name.to_owned(), Variable { value, exported: true });
        let variables = variables.into_iter().map(exported).collect();
        Self { current: Context { variables, menu: Vec::new() }, outer: Vec::new() }
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.current.variables.get(name).map(|variable| &*variable.value)
    }

    pub(super) fn set(&mut self, name: &str, value: &str) {
        // The root device is kept without parentheses.
        let bare = value.strip_prefix('(').and_then(|inner| inner.strip_suffix(')'));
        let value = bare.filter(|_| name == "root").unwrap_or(value);
        self.current.variables.entry(name.to_owned()).or_default().value = value.to_owned();
    }

    pub(super) fn unset(&mut self, name: &str) {
        self.current.variables.remove(name);
    }

    pub(super) fn export(&mut self, name: &str) {
        self.current.variables.entry(name.to_owned()).or_default().exported = true;
    }

    pub(super) fn menu(&self) -> &[MenuEntry] {
        &self.current.menu
    }

    pub(super) fn menu_mut(&mut self) -> &mut Vec<MenuEntry> {
        &mut self.current.menu
    }

    /// Begins a context with the exported variables.
    pub(super) fn open(&mut self) {
        let variables = &self.current.variables;
        let exported = variables.iter().filter(|(_, variable)| variable.exported);
        let variables = exported.map(|(name, variable)| (name.clone(), variable.clone())).collect();
        let inner = Context { variables, menu: Vec::new() };
        self.outer.push(std::mem::replace(&mut self.current, inner));
    }

    /// Ends a context and forgets its variables.
    pub(super) fn close(&mut self) {
        if let Some(outer) = self.outer.pop() {
            self.current = outer;
        }
    }

    /// Bytes of the exported variables: what [`Self::open`] copies.
    pub(super) fn cost(&self) -> u64 {
        let variables = self.current.variables.iter();
        variables.map(|(name, variable)| (name.len() + variable.value.len() + 64) as u64).sum()
    }
}
