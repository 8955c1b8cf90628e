//! An object store that answers as far ones do on bad days (feature `test-util`): 500, 503, 409, 403, late, never for a
//! while; and it may have done what it was asked before it answers with an error.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
};

/// What a store answers instead of doing what it was asked, or after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// 500.
    InternalError,
    /// 503.
    SlowDown,
    /// 403.
    Forbidden,
    /// 409: for a file that must be new "it is there already", else a conflict of requests.
    Conflict,
    /// No answer: the connection is gone.
    Nothing,
}

const ANSWERS: [Answer; 5] =
    [Answer::InternalError, Answer::SlowDown, Answer::Forbidden, Answer::Conflict, Answer::Nothing];

/// What goes wrong, shared by all stores of one sink and the test.
#[derive(Clone, Debug)]
pub struct Weather(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    random: u64,
    /// One in so many calls fails, 0 none.
    one_in: u64,
    /// Every call fails.
    outage: Option<Answer>,
    /// Every call takes so long.
    delay: Duration,
    calls: u64,
    failed: u64,
    /// Failed after the effect.
    after: u64,
}

/// What happens to one call.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Good,
    Before(Answer),
    After(Answer),
}

impl Weather {
    /// Good weather, whose storms follow from a seed.
    #[must_use]
    pub fn new(seed: u64) -> Weather {
        let state = State {
            random: seed,
            one_in: 0,
            outage: None,
            delay: Duration::ZERO,
            calls: 0,
            failed: 0,
            after: 0,
        };
        Weather(Arc::new(Mutex::new(state)))
    }

    /// One in so many calls fails from now on, before or after its effect; 0: none.
    pub fn storm(&self, one_in: u64) {
        self.state().one_in = one_in;
    }

    /// Every call is answered so, without effect; `None`: the store is back.
    pub fn outage(&self, answer: Option<Answer>) {
        self.state().outage = answer;
    }

    /// Every call takes so much longer.
    pub fn delay(&self, delay: Duration) {
        self.state().delay = delay;
    }

    /// Calls so far, those that failed, and those of them that had their effect.
    #[must_use]
    pub fn counts(&self) -> (u64, u64, u64) {
        let state = self.state();
        (state.calls, state.failed, state.after)
    }

    /// A store in this weather.
    #[must_use]
    pub fn over(&self, store: Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore> {
        Arc::new(FaultyStore { store, weather: self.clone() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn next(&self) -> Fate {
        let (fate, delay) = {
            let mut state = self.state();
            state.calls += 1;
            let fate = state.fate();
            state.failed += u64::from(!matches!(fate, Fate::Good));
            state.after += u64::from(matches!(fate, Fate::After(_)));
            (fate, state.delay)
        };
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        fate
    }
}

impl State {
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn fate(&mut self) -> Fate {
        if let Some(answer) = self.outage {
            return Fate::Before(answer);
        }
        if self.one_in == 0 || !self.random().is_multiple_of(self.one_in) {
            return Fate::Good;
        }
        let random = self.random();
        let nth = usize::try_from(random / 2 % ANSWERS.len() as u64).unwrap_or(0);
        let answer = ANSWERS.get(nth).copied().unwrap_or(Answer::InternalError);
        if random.is_multiple_of(2) { Fate::Before(answer) } else { Fate::After(answer) }
    }
}

impl Answer {
    fn error(self, path: &str, must_be_new: bool) -> Error {
        let said = |text: &str| -> Box<dyn std::error::Error + Send + Sync> { text.to_owned().into() };
        let generic = |text| Error::Generic { store: "faulty", source: said(text) };
        match self {
            Self::InternalError => generic("500 Internal Server Error"),
            Self::SlowDown => generic("503 Slow Down"),
            Self::Forbidden => {
                Error::PermissionDenied { path: path.to_owned(), source: said("403 Forbidden") }
            }
            Self::Conflict if must_be_new => {
                Error::AlreadyExists { path: path.to_owned(), source: said("409 Conflict") }
            }
            Self::Conflict => generic("409 Conflict"),
            Self::Nothing => generic("connection closed before the answer"),
        }
    }
}

/// The store.
#[derive(Debug)]
struct FaultyStore {
    store: Arc<dyn ObjectStore>,
    weather: Weather,
}

impl FaultyStore {
    async fn call<T>(
        &self,
        path: &str,
        must_be_new: bool,
        work: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        match self.weather.next().await {
            Fate::Good => work.await,
            Fate::Before(answer) => Err(answer.error(path, must_be_new)),
            Fate::After(answer) => {
                work.await?;
                Err(answer.error(path, must_be_new))
            }
        }
    }
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "faulty {}", self.store)
    }
}

#[async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let must_be_new = matches!(opts.mode, PutMode::Create);
        self.call(location.as_ref(), must_be_new, self.store.put_opts(location, payload, opts)).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.call(location.as_ref(), false, self.store.put_multipart_opts(location, opts)).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.call(location.as_ref(), false, self.store.get_opts(location, options)).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.call(location.as_ref(), false, self.store.get_ranges(location, ranges)).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.store.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.listed(prefix.map_or("", AsRef::as_ref), self.store.list(prefix))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.listed(prefix.map_or("", AsRef::as_ref), self.store.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let path = prefix.map_or("", AsRef::as_ref);
        self.call(path, false, self.store.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.call(to.as_ref(), false, self.store.copy_opts(from, to, options)).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.call(to.as_ref(), false, self.store.rename_opts(from, to, options)).await
    }
}

impl FaultyStore {
    /// A listing fails as a whole, before its first entry.
    fn listed(
        &self,
        path: &str,
        entries: BoxStream<'static, Result<ObjectMeta>>,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let (weather, path) = (self.weather.clone(), path.to_owned());
        let begin = async move {
            match weather.next().await {
                Fate::Good => entries,
                Fate::Before(answer) | Fate::After(answer) => {
                    futures_util::stream::once(async move { Err(answer.error(&path, false)) }).boxed()
                }
            }
        };
        futures_util::stream::once(begin).flatten().boxed()
    }
}
