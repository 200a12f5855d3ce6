using System;
using System.Collections.Generic;
using System.Diagnostics;
using System.Net.Http;
using System.Runtime.Serialization;
using System.Threading.Tasks;

namespace Invoices
{
    /// <summary>Keeps an access token by client credentials (RFC 6749 section 4.4). Safe for threads.</summary>
    /// <remarks>
    /// The token is renewed at 80 % of its lifetime, in the background. Callers that need a token at the same time wait
    /// for one request. The last token is used while renewal fails.
    /// </remarks>
    public sealed class ServiceAuthenticator
    {
        private static readonly TimeSpan RetryAfter = TimeSpan.FromSeconds(5); // between failed renewals

        private readonly HttpClient httpClient;
        private readonly string tokenEndpoint;
        private readonly Dictionary<string, string> form;
        private readonly Stopwatch clock = Stopwatch.StartNew();

        private readonly object gate = new object(); // never held during a request
        private Token token;
        private Task<Token> pending;
        private TimeSpan retryAt;

        public ServiceAuthenticator(
            HttpClient httpClient, string issuer, string clientId, string clientSecret, string scope)
        {
            this.httpClient = httpClient;
            tokenEndpoint = issuer + "/connect/token";
            form = new Dictionary<string, string>
            {
                ["grant_type"] = "client_credentials",
                ["client_id"] = clientId,
                ["client_secret"] = clientSecret,
                ["scope"] = scope,
            };
        }

        /// <summary>Returns a token other than <paramref name="refused"/>, the one that an API did not accept.</summary>
        public async Task<string> GetAccessTokenAsync(string refused = null)
        {
            Task<Token> renewal;
            lock (gate)
            {
                var now = clock.Elapsed;
                var usable = token != null && token.Value != refused && now < token.ExpiresAt;
                if (usable && (now < token.RenewAt || now < retryAt))
                {
                    return token.Value;
                }
                pending = pending ?? Task.Run(RenewAsync);
                if (usable)
                {
                    return token.Value;
                }
                renewal = pending;
            }
            return (await renewal.ConfigureAwait(false)).Value;
        }

        private async Task<Token> RenewAsync()
        {
            try
            {
                var next = await RequestAsync().ConfigureAwait(false);
                lock (gate)
                {
                    token = next;
                    pending = null;
                }
                return next;
            }
            catch (Exception failure)
            {
                Console.Error.WriteLine("token request failed: " + failure.Message);
                lock (gate)
                {
                    retryAt = clock.Elapsed + RetryAfter;
                    pending = null;
                }
                throw;
            }
        }

        private async Task<Token> RequestAsync()
        {
            var now = clock.Elapsed;
            using (var content = new FormUrlEncodedContent(form))
            using (var response = await httpClient.PostAsync(tokenEndpoint, content).ConfigureAwait(false))
            {
                if (!response.IsSuccessStatusCode)
                {
                    var reason = await response.Content.ReadAsStringAsync().ConfigureAwait(false);
                    throw new HttpRequestException("no token: " + (int)response.StatusCode + " " + reason);
                }
                var answer = await Json.ReadAsync<TokenResponse>(response.Content).ConfigureAwait(false);
                if (string.IsNullOrEmpty(answer.AccessToken) || answer.ExpiresIn <= 0)
                {
                    throw new HttpRequestException("no token in the answer of " + tokenEndpoint);
                }
                return new Token
                {
                    Value = answer.AccessToken,
                    RenewAt = now + TimeSpan.FromSeconds(0.8 * answer.ExpiresIn),
                    ExpiresAt = now + TimeSpan.FromSeconds(answer.ExpiresIn),
                };
            }
        }

        private sealed class Token
        {
            public string Value { get; set; }
            public TimeSpan RenewAt { get; set; }
            public TimeSpan ExpiresAt { get; set; }
        }

        [DataContract]
        private sealed class TokenResponse
        {
            [DataMember(Name = "access_token")]
            public string AccessToken { get; set; }

            [DataMember(Name = "expires_in")]
            public double ExpiresIn { get; set; }
        }
    }
}
