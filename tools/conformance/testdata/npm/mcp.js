// A client and a server of the MCP TypeScript SDK: the client finds the issuer by the metadata of the server (RFC 9728),
// gets a token, and calls a tool.
import assert from 'node:assert/strict'
import { Client } from '@modelcontextprotocol/sdk/client/index.js'
import { discoverAuthorizationServerMetadata } from '@modelcontextprotocol/sdk/client/auth.js'
import { ClientCredentialsProvider } from '@modelcontextprotocol/sdk/client/auth-extensions.js'
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js'
import { getOAuthProtectedResourceMetadataUrl, mcpAuthMetadataRouter } from '@modelcontextprotocol/sdk/server/auth/router.js'
import { requireBearerAuth } from '@modelcontextprotocol/sdk/server/auth/middleware/bearerAuth.js'
import { createMcpExpressApp } from '@modelcontextprotocol/sdk/server/express.js'
import { McpServer } from '@modelcontextprotocol/sdk/server/mcp.js'
import { StreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/streamableHttp.js'
import { DOCUMENT, ISSUER, MCP_RESOURCE, MCP_SCOPE, PLAIN_ID, PLAIN_SECRET, report, verify } from './environment.js'

// Finds nothing at the place of the other document.
let read = 0
async function fetchOne(url, init) {
  const { pathname } = new URL(url)
  if (/oauth-authorization-server|openid-configuration/.test(pathname)) {
    if (!pathname.includes(DOCUMENT)) return new Response(null, { status: 404 })
    read++
  }
  return fetch(url, init)
}

const oauthMetadata = await discoverAuthorizationServerMetadata(ISSUER, { fetchFn: fetchOne })
assert.equal(oauthMetadata.issuer, ISSUER)
assert(oauthMetadata.authorization_endpoint)

const resource = new URL(MCP_RESOURCE)
const app = createMcpExpressApp()
app.use(mcpAuthMetadataRouter({ oauthMetadata, resourceServerUrl: resource }))
const guard = requireBearerAuth({
  requiredScopes: [MCP_SCOPE],
  resourceMetadataUrl: getOAuthProtectedResourceMetadataUrl(resource),
  expectedResource: resource,
  verifier: {
    async verifyAccessToken(token) {
      const claims = await verify(oauthMetadata, token, MCP_RESOURCE, MCP_SCOPE)
      return { token, clientId: claims.client_id, scopes: claims.scope.split(' '), expiresAt: claims.exp, resource: new URL(claims.aud) }
    },
  },
})
app.post(resource.pathname, guard, async (request, response) => {
  const server = new McpServer({ name: 'conformance', version: '1.0.0' })
  server.registerTool('caller', {}, ({ authInfo }) => ({ content: [{ type: 'text', text: authInfo.clientId }] }))
  const transport = new StreamableHTTPServerTransport({ sessionIdGenerator: undefined })
  await server.connect(transport)
  await transport.handleRequest(request, response, request.body)
})
const listener = app.listen(resource.port, resource.hostname)

const authProvider = new ClientCredentialsProvider({
  clientId: PLAIN_ID, clientSecret: PLAIN_SECRET, scope: MCP_SCOPE, expectedIssuer: ISSUER,
})
const client = new Client({ name: 'conformance', version: '1.0.0' })
read = 0
await client.connect(new StreamableHTTPClientTransport(resource, { authProvider, fetch: fetchOne }))
const { content } = await client.callTool({ name: 'caller' })
assert.equal(content[0].text, PLAIN_ID)
assert(read > 0)
await client.close()
listener.close()
listener.closeAllConnections()
report('MCP TypeScript SDK')
