using System;
using System.Collections.Generic;
using System.Linq;
using System.Net.Http;
using System.Runtime.Serialization;
using System.Threading;
using System.Threading.Tasks;

namespace Invoices
{
    /// <summary>A background service that lists invoices periodically.</summary>
    public static class Program
    {
        private static readonly string HttpApi = Setting("HTTP_API", "http://localhost:9090");
        private static readonly TimeSpan Interval =
            TimeSpan.FromSeconds(double.Parse(Setting("INTERVAL", "2"), System.Globalization.CultureInfo.InvariantCulture));

        public static void Main()
        {
            MainAsync().GetAwaiter().GetResult(); // Mono's compiler knows no asynchronous Main
        }

        private static async Task MainAsync()
        {
            using (var stop = new CancellationTokenSource())
            using (var httpClient = new HttpClient { Timeout = TimeSpan.FromSeconds(5) })
            {
                Console.CancelKeyPress += (_, press) =>
                {
                    press.Cancel = true;
                    stop.Cancel();
                };
                var authenticator = new ServiceAuthenticator(
                    httpClient,
                    Setting("ISSUER", "http://localhost:8080"),
                    Setting("CLIENT_ID", "background-service"),
                    // The default is the secret of development mode, which is public.
                    Setting("CLIENT_SECRET", "service-secret-here"),
                    Setting("SCOPE", "api1"));
                await RunAsync(new ApiClient(httpClient, authenticator), stop.Token).ConfigureAwait(false);
            }
        }

        private static async Task RunAsync(ApiClient api, CancellationToken stop)
        {
            while (!stop.IsCancellationRequested)
            {
                try
                {
                    var answer = await api.GetAsync<Answer>(HttpApi + "/api/invoices", stop).ConfigureAwait(false);
                    Console.WriteLine("listed over=http invoices=" + string.Join(",", answer.Invoices.Select(i => i.Id)));
                    await Task.Delay(Interval, stop).ConfigureAwait(false);
                }
                catch (OperationCanceledException) when (stop.IsCancellationRequested)
                {
                    return;
                }
                catch (Exception failure)
                {
                    // The next round may succeed, so no failure ends the loop.
                    Console.Error.WriteLine("listing failed over=http: " + failure.Message);
                    await Task.WhenAny(Task.Delay(Interval, stop)).ConfigureAwait(false);
                }
            }
        }

        private static string Setting(string name, string otherwise)
        {
            return Environment.GetEnvironmentVariable(name) ?? otherwise;
        }

        [DataContract]
        private sealed class Answer
        {
            [DataMember(Name = "invoices")]
            public List<Invoice> Invoices { get; set; }
        }

        [DataContract]
        private sealed class Invoice
        {
            [DataMember(Name = "id")]
            public string Id { get; set; }
        }
    }
}
