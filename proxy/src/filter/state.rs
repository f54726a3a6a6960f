//! What filters keep of a request until its response, without a field of the context for each.

use std::any::Any;

/// State of a chain's filters for one request: each filter may keep one value of a type of its own, which it alone sees.
/// While none does, there is nothing to allocate or drop.
#[derive(Default)]
pub struct FilterState {
    /// Place of the filter that runs.
    of: usize,
    /// Values by the place of their filter: as many as there are filters, at most.
    kept: Vec<(usize, Box<dyn Any + Send>)>,
}

impl FilterState {
    /// The filter at this place runs.
    pub(super) fn is_of(&mut self, place: usize) {
        self.of = place;
    }

    /// Keeps a value of the filter that runs, in place of what it kept before.
    pub fn keep<T: Any + Send>(&mut self, value: T) {
        let value = Box::new(value);
        match self.kept.iter_mut().find(|(of, _)| *of == self.of) {
            Some((_, kept)) => *kept = value,
            None => self.kept.push((self.of, value)),
        }
    }

    /// The value that the filter keeps, if it is of this type.
    pub fn get<T: Any>(&self) -> Option<&T> {
        self.kept.iter().find(|(of, _)| *of == self.of)?.1.downcast_ref()
    }

    /// Gives up the value that the filter keeps, if it is of this type.
    pub fn take<T: Any>(&mut self) -> Option<T> {
        let at = self.kept.iter().position(|(of, value)| *of == self.of && value.is::<T>())?;
        self.kept.swap_remove(at).1.downcast().ok().map(|value| *value)
    }
}
