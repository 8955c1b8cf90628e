//! What devices of one agent share by a name of their drivers' choice: the one connection to a gateway, say.
//!
//! Nothing here is kept alive: what no device holds any more is gone.

use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

type Things = HashMap<String, Weak<dyn Any + Send + Sync>>;

/// A place for shared things. Cheap to clone; all clones are one.
#[derive(Clone, Debug, Default)]
pub struct Shared {
    things: Arc<Mutex<Things>>,
}

impl Shared {
    /// The thing of that name, made by `make` if there is none. A thing of another type under the name is replaced: drivers put
    /// their own name before it.
    pub fn get<T: Any + Send + Sync>(&self, name: &str, make: impl FnOnce() -> T) -> Arc<T> {
        let mut things = self.things.lock().unwrap_or_else(PoisonError::into_inner);
        things.retain(|_, thing| thing.strong_count() > 0);
        let found = things.get(name).and_then(Weak::upgrade);
        if let Some(Ok(found)) = found.map(Arc::downcast::<T>) {
            return found;
        }
        let made = Arc::new(make());
        let kept: Arc<dyn Any + Send + Sync> = made.clone();
        things.insert(name.to_owned(), Arc::downgrade(&kept));
        made
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_name_is_one_thing_while_somebody_holds_it() {
        let shared = Shared::default();
        let first = shared.get("modbus a", || Mutex::new(1));
        *first.lock().unwrap() = 2;
        assert_eq!(*shared.clone().get("modbus a", || Mutex::new(9)).lock().unwrap(), 2);
        assert_eq!(*shared.get("modbus b", || Mutex::new(9)).lock().unwrap(), 9);
        drop(first);
        assert_eq!(*shared.get("modbus a", || Mutex::new(7)).lock().unwrap(), 7);
    }
}
