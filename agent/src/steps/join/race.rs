//! Of several addresses of one cluster, the one that is good first is as good as any; only when none is, each has to be heard.

use std::future::Future;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

/// Examines all endpoints at once. The first that passes wins, with those that had failed by then, and the rest are dropped; when none
/// does, all failures come back. Failures are in the order of the endpoints.
pub async fn race<'a, W, L, F>(endpoints: &'a [String], examine: impl Fn(&'a str) -> F) -> Result<(W, Vec<L>), Vec<L>>
where
    F: Future<Output = Result<W, L>>,
{
    let examine = &examine;
    let race = endpoints.iter().enumerate().map(|(place, endpoint)| async move { (place, examine(endpoint).await) });
    let mut race: FuturesUnordered<_> = race.collect();
    let mut losers = Vec::new();
    let mut winner = None;
    while let Some((place, result)) = race.next().await {
        match result {
            Ok(first) => {
                winner = Some(first);
                break;
            }
            Err(loser) => losers.push((place, loser)),
        }
    }
    losers.sort_by_key(|(place, _)| *place);
    let losers = losers.into_iter().map(|(_, loser)| loser).collect();
    match winner {
        Some(winner) => Ok((winner, losers)),
        None => Err(losers),
    }
}
