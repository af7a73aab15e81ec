//! Leases: one worker holds a record for a while, and the holder is told apart from a late one by a token.

use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::{Entity, Error, LeaseToken, Result, WorkerId, time};

/// The longest lease: long enough for any run, short enough that a crashed worker is found the same week.
pub const MAX_LEASE: Duration = Duration::from_secs(7 * 24 * 3600);

/// Who holds a record, and until when.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Lease {
    /// The worker that claimed the record.
    pub worker: WorkerId,
    /// When the lease lapses: it holds before this time, not at it.
    pub until: DateTime<Utc>,
    /// Which claim this is. Only who has the token can finish, renew or release.
    pub token: LeaseToken,
}

impl Lease {
    /// Whether the lease holds at `now`.
    pub fn holds(&self, now: DateTime<Utc>) -> bool {
        now < self.until
    }

    /// A new lease of `length` from `now`.
    ///
    /// # Errors
    /// `InvalidInput` for a length of zero or above [`MAX_LEASE`], or a time outside the range.
    pub fn grant(
        worker: &WorkerId,
        token: LeaseToken,
        now: DateTime<Utc>,
        length: Duration,
    ) -> Result<Lease> {
        Ok(Lease { worker: worker.clone(), until: end(now, length)?, token })
    }

    /// The same lease, held for `length` from `now`; never shorter than it was.
    ///
    /// # Errors
    /// As [`Lease::grant`].
    pub fn renewed(&self, now: DateTime<Utc>, length: Duration) -> Result<Lease> {
        Ok(Lease { until: end(now, length)?.max(self.until), ..self.clone() })
    }
}

/// When a lease of `length` from `now` lapses.
///
/// # Errors
/// As [`Lease::grant`].
pub fn end(now: DateTime<Utc>, length: Duration) -> Result<DateTime<Utc>> {
    if length.is_zero() || length > MAX_LEASE {
        return Err(Error::invalid("lease", format!("{length:?} is not between 1 ns and {MAX_LEASE:?}")));
    }
    time::after("lease", now, length)
}

/// Whether a worker may claim a record that has this lease, or none.
pub fn claimable(lease: Option<&Lease>, now: DateTime<Utc>) -> bool {
    lease.is_none_or(|lease| !lease.holds(now))
}

/// Checks that a worker may claim a record that has this lease, or none.
///
/// # Errors
/// `Conflict`, which says who holds it.
pub fn check_claimable(what: Entity, id: &str, lease: Option<&Lease>, now: DateTime<Utc>) -> Result<()> {
    match lease.filter(|lease| lease.holds(now)) {
        None => Ok(()),
        Some(Lease { worker, until, .. }) => {
            Err(Error::conflict(what, id, format!("{worker} holds it until {until}")))
        }
    }
}

/// The lease that `token` holds at `now`.
///
/// # Errors
/// `LeaseLost` when there is none, it belongs to another claim, or it lapsed, whether or not anybody else has
/// claimed the record since (law MARK-5).
pub fn held<'a>(
    what: Entity,
    id: &str,
    lease: Option<&'a Lease>,
    token: LeaseToken,
    now: DateTime<Utc>,
) -> Result<&'a Lease> {
    lease.filter(|lease| lease.token == token && lease.holds(now)).ok_or_else(|| Error::lease_lost(what, id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_holds_up_to_its_end_and_not_at_it() {
        let now = time::from_nanos(1_000);
        let worker = WorkerId::new("w").unwrap();
        let lease = Lease::grant(&worker, LeaseToken(7), now, Duration::from_nanos(10)).unwrap();
        let at = |n: i64| time::from_nanos(1_000 + n);
        assert!(!claimable(Some(&lease), at(9)) && claimable(Some(&lease), at(10)) && claimable(None, now));
        let claim = |lease, n| check_claimable(Entity::Checkpoint, "r", lease, at(n));
        assert!(claim(Some(&lease), 10).is_ok() && claim(None, 0).is_ok());
        let refused = claim(Some(&lease), 9).unwrap_err().to_string();
        assert!(refused.contains("w holds it until 1970-01-01 00:00:00.000001010 UTC"), "{refused}");
        let ask = |token, n| held(Entity::Run, "r", Some(&lease), LeaseToken(token), at(n)).map(drop);
        assert!(ask(7, 9).is_ok());
        assert!(ask(7, 10).is_err() && ask(8, 9).is_err());
        assert_eq!(lease.renewed(at(5), Duration::from_nanos(1)).unwrap().until, lease.until);
        assert_eq!(lease.renewed(at(5), Duration::from_nanos(10)).unwrap().until, at(15));
    }

    #[test]
    fn lengths_are_bounded() {
        let now = time::from_nanos(0);
        assert!(end(now, Duration::ZERO).is_err());
        // A week, in seconds.
        assert_eq!(end(now, MAX_LEASE).unwrap(), time::from_nanos(604_800 * 1_000_000_000));
        assert!(end(now, MAX_LEASE + Duration::from_nanos(1)).is_err());
        assert!(end(time::from_nanos(i64::MAX), Duration::from_nanos(1)).is_err());
    }
}
