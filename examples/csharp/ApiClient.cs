using System.Net;
using System.Net.Http;
using System.Net.Http.Headers;
using System.Threading;
using System.Threading.Tasks;

namespace Invoices
{
    /// <summary>Sends requests with the token, and once more with another one after a 401.</summary>
    public sealed class ApiClient
    {
        private readonly HttpClient httpClient;
        private readonly ServiceAuthenticator authenticator;

        public ApiClient(HttpClient httpClient, ServiceAuthenticator authenticator)
        {
            this.httpClient = httpClient;
            this.authenticator = authenticator;
        }

        public async Task<T> GetAsync<T>(string url, CancellationToken cancellation)
        {
            var token = await authenticator.GetAccessTokenAsync().ConfigureAwait(false);
            var response = await SendAsync(url, token, cancellation).ConfigureAwait(false);
            if (response.StatusCode == HttpStatusCode.Unauthorized)
            {
                response.Dispose();
                token = await authenticator.GetAccessTokenAsync(refused: token).ConfigureAwait(false);
                response = await SendAsync(url, token, cancellation).ConfigureAwait(false);
            }
            using (response)
            {
                response.EnsureSuccessStatusCode();
                return await Json.ReadAsync<T>(response.Content).ConfigureAwait(false);
            }
        }

        private async Task<HttpResponseMessage> SendAsync(string url, string token, CancellationToken cancellation)
        {
            using (var request = new HttpRequestMessage(HttpMethod.Get, url))
            {
                request.Headers.Authorization = new AuthenticationHeaderValue("Bearer", token);
                return await httpClient.SendAsync(request, cancellation).ConfigureAwait(false);
            }
        }
    }
}
