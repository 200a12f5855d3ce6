package example;

import invoices.v1.InvoiceServiceGrpc;
import invoices.v1.Invoices;
import invoices.v1.Invoices.CreateInvoiceRequest;
import invoices.v1.Invoices.CreateInvoiceResponse;
import invoices.v1.Invoices.ListInvoicesRequest;
import invoices.v1.Invoices.ListInvoicesResponse;
import io.grpc.stub.StreamObserver;
import java.lang.System.Logger;
import java.lang.System.Logger.Level;

/** The gRPC half of the API. */
final class InvoiceService extends InvoiceServiceGrpc.InvoiceServiceImplBase {
  private static final Logger log = System.getLogger("server");

  private final InvoiceBook book;

  InvoiceService(InvoiceBook book) {
    this.book = book;
  }

  @Override
  public void listInvoices(
      ListInvoicesRequest request, StreamObserver<ListInvoicesResponse> observer) {
    log.log(Level.INFO, "listed over gRPC for {0}", GrpcGuard.CALLER.get().clientId());
    var response = ListInvoicesResponse.newBuilder();
    book.list().forEach(invoice -> response.addInvoices(message(invoice)));
    observer.onNext(response.build());
    observer.onCompleted();
  }

  @Override
  public void createInvoice(
      CreateInvoiceRequest request, StreamObserver<CreateInvoiceResponse> observer) {
    var invoice = book.create(GrpcGuard.CALLER.get().clientId(), request.getCents());
    observer.onNext(CreateInvoiceResponse.newBuilder().setInvoice(message(invoice)).build());
    observer.onCompleted();
  }

  private static Invoices.Invoice message(InvoiceBook.Invoice invoice) {
    return Invoices.Invoice.newBuilder().setId(invoice.id()).setCents(invoice.cents()).build();
  }
}
