using System.Net.Http;
using System.Runtime.Serialization.Json;
using System.Threading.Tasks;

namespace Invoices
{
    internal static class Json
    {
        public static async Task<T> ReadAsync<T>(HttpContent content)
        {
            using (var body = await content.ReadAsStreamAsync().ConfigureAwait(false))
            {
                return (T)new DataContractJsonSerializer(typeof(T)).ReadObject(body);
            }
        }
    }
}
