//! What is in doubt, for people: each branch once, and with the label of the moment at which it is
//! asked for, because what an operator is advised to do hangs on it.
//!
//! The list is the auditor's last one. It changes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::stream::{self, StreamExt};
use handfast_core::ids::Name;
use handfast_database::Kind;

use super::{Databases, InDoubt, Label, Shared, View, auditor};

/// Questions that are put to the node at once.
const AT_ONCE: usize = 64;

impl Databases {
    /// Every database with what is prepared in it, labelled anew.
    pub async fn in_doubt(&self) -> Vec<View> {
        let mut views = self.list();
        let shared = |name: &Name| self.entries().get(name).map(|entry| Arc::clone(&entry.shared));
        for view in &mut views {
            let Some(shared) = shared(&view.name) else { continue };
            let rows = std::mem::take(&mut view.status.in_doubt);
            let labelled = stream::iter(rows).map(|row| relabelled(&shared, row));
            view.status.in_doubt = labelled.buffered(AT_ONCE).collect().await;
        }
        views
    }
}

/// A decision that was made after the audit stands in the journal, and nowhere in the list.
async fn relabelled(shared: &Shared, row: InDoubt) -> InDoubt {
    let Some(branch) = row.prepared.branch else { return row };
    match auditor::label(shared, &branch).await {
        Ok(label) => {
            let why_left = row.why_left.filter(|_| label.may_be_left());
            InDoubt { label, why_left, ..row }
        }
        // The node has stopped, and so will this server.
        Err(_) => row,
    }
}

/// MariaDB lists what is prepared on the whole server. Where several of its databases are
/// registered, each branch stays with the one to which it belongs, or with the first.
pub(super) fn once(views: &mut [View]) {
    let server = |view: &View| match (view.kind, &view.status.identity) {
        (Kind::MariaDb, Some(identity)) => Some(identity.server.clone()),
        (Kind::MariaDb | Kind::Postgres, _) => None,
    };
    let name = |row: &InDoubt| (row.prepared.branch, row.prepared.foreign.clone());
    let mut place = BTreeMap::new();
    for (at, view) in views.iter().enumerate() {
        let Some(server) = server(view) else { continue };
        for row in &view.status.in_doubt {
            let key = (server.clone(), name(row));
            let belongs = !matches!(row.label, Label::Elsewhere | Label::Foreign);
            if belongs || !place.contains_key(&key) {
                place.insert(key, at);
            }
        }
    }
    for (at, view) in views.iter_mut().enumerate() {
        let Some(server) = server(view) else { continue };
        let is_here = |row: &InDoubt| place.get(&(server.clone(), name(row))) == Some(&at);
        view.status.in_doubt.retain(is_here);
    }
}

#[cfg(test)]
mod tests {
    use handfast_core::branch::BranchId;
    use handfast_core::ids::{StoreId, TransactionId};
    use handfast_database::{Home, Identity, Prepared};

    use super::*;
    use crate::databases::Status;

    fn view(name: &str, kind: Kind, server: &str, rows: &[(Label, &InDoubt)]) -> View {
        let mut status = Status::new();
        let (server, database) = (server.to_owned(), String::new());
        let home = Home::new(Kind::MariaDb, "`a`.handfast_branch", "a").expect("a place");
        status.identity = Some(Identity { server, incarnation: 1, database, home });
        let labelled = rows.iter().map(|(label, row)| InDoubt { label: *label, ..(*row).clone() });
        status.in_doubt = labelled.collect();
        let name = Name::new(name).expect("a name");
        View { name, kind, url: String::new(), status }
    }

    fn row(branch: Option<BranchId>) -> InDoubt {
        let foreign = branch.is_none().then(|| "theirs".to_owned());
        let (age, user, waiting, belongs_to) = (None, None, None, None);
        let prepared = Prepared { branch, foreign, age, user, waiting, belongs_to };
        InDoubt { prepared, label: Label::Foreign, age: None, why_left: None }
    }

    #[test]
    fn a_branch_of_one_mariadb_with_two_databases_is_listed_once() {
        let name = Name::new("stock").expect("a name");
        let ours = row(Some(BranchId::new(TransactionId(1), StoreId(2), &name)));
        let theirs = row(None);
        let elsewhere = [(Label::Elsewhere, &ours), (Label::Foreign, &theirs)];
        let here = [(Label::Undecided, &ours), (Label::Foreign, &theirs)];
        let mut views = [
            view("other", Kind::MariaDb, "1 at a:3306", &elsewhere),
            view("stock", Kind::MariaDb, "1 at a:3306", &here),
            view("third", Kind::MariaDb, "2 at b:3306", &elsewhere),
            view("orders", Kind::Postgres, "7", &[(Label::Foreign, &theirs)]),
        ];
        once(&mut views);
        let labels: Vec<Vec<Label>> = views
            .iter()
            .map(|view| view.status.in_doubt.iter().map(|row| row.label).collect())
            .collect();
        let two = vec![Label::Elsewhere, Label::Foreign];
        let expected = [vec![Label::Foreign], vec![Label::Undecided], two, vec![Label::Foreign]];
        assert_eq!(labels, expected);
    }
}
