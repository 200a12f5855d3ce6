package example;

import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;

/** The invoices, which both servers share. */
final class InvoiceBook {
  private static final Logger log = System.getLogger("server");

  record Invoice(String id, long cents) {}

  private final List<Invoice> invoices =
      new CopyOnWriteArrayList<>(List.of(new Invoice("2026-001", 12_000)));

  List<Invoice> list() {
    return invoices;
  }

  synchronized Invoice create(String clientId, long cents) {
    var invoice = new Invoice("2026-%03d".formatted(invoices.size() + 1), cents);
    invoices.add(invoice);
    log.log(Level.INFO, "created {0} for {1}", invoice.id(), clientId);
    return invoice;
  }
}
