package compare;

import com.arjuna.ats.arjuna.common.CoordinatorEnvironmentBean;
import com.arjuna.ats.arjuna.common.ObjectStoreEnvironmentBean;
import com.arjuna.ats.arjuna.common.arjPropertyManager;
import com.arjuna.ats.internal.arjuna.objectstore.ShadowNoFileLockStore;
import com.arjuna.ats.internal.arjuna.objectstore.hornetq.HornetqJournalEnvironmentBean;
import com.arjuna.ats.internal.arjuna.objectstore.hornetq.HornetqObjectStoreAdaptor;
import com.arjuna.common.internal.util.propertyservice.BeanPopulator;
import jakarta.transaction.TransactionManager;

/** Narayana with one of its two stores that are synced: a file for each transaction, or a journal. */
final class Coordinator {
    private Coordinator() {}

    static TransactionManager start(String store, String directory) throws Exception {
        arjPropertyManager.getCoreEnvironmentBean().setNodeIdentifier("compare");
        boolean journal = store.equals("journal");
        String type =
                (journal ? HornetqObjectStoreAdaptor.class : ShadowNoFileLockStore.class).getName();
        // The second and third are for other kinds of object than those of transactions.
        for (String name : new String[] {null, "stateStore", "communicationStore"}) {
            ObjectStoreEnvironmentBean bean =
                    name == null
                            ? arjPropertyManager.getObjectStoreEnvironmentBean()
                            : BeanPopulator.getNamedInstance(ObjectStoreEnvironmentBean.class, name);
            bean.setObjectStoreDir(directory);
            bean.setObjectStoreType(type);
        }
        if (journal) {
            HornetqJournalEnvironmentBean bean =
                    BeanPopulator.getDefaultInstance(HornetqJournalEnvironmentBean.class);
            bean.setStoreDir(directory);
            // Through the file system's usual calls: the other way needs a native library.
            bean.setAsyncIO(false);
            // Adding a record waits for its sync. That it is gone again need not be durable: after
            // a crash a decision that is still there is carried out again, and finds nothing.
            bean.setSyncDeletes(false);
        }
        CoordinatorEnvironmentBean coordinator = arjPropertyManager.getCoordinatorEnvironmentBean();
        // Nobody asks from outside: it need not listen on a port.
        coordinator.setTransactionStatusManagerEnable(false);
        // Both branches at the same time.
        coordinator.setAsyncPrepare(true);
        return com.arjuna.ats.jta.TransactionManager.transactionManager();
    }
}
