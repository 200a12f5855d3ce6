// @grpc/grpc-js, with stubs made from proto/ by @grpc/proto-loader, against the issuer and the API of the environment.
import assert from 'node:assert/strict'
import { promisify } from 'node:util'
import grpc from '@grpc/grpc-js'
import { loadSync } from '@grpc/proto-loader'

const { PROTOS, ISSUER_GRPC, API_GRPC, CLIENT_ID, CLIENT_SECRET, SCOPE, OTHER_SCOPE, RESOURCE } = process.env
const definition = loadSync(['grantor/v1/token_service.proto', 'invoices/v1/invoices.proto'], { includeDirs: PROTOS.split(':'), keepCase: true })
assert.deepEqual(definition['invoices.v1.InvoiceService'].ListInvoices.options['(grantor.v1.rule)'], { scopes: [SCOPE] })
const { grantor, invoices } = grpc.loadPackageDefinition(definition)

function connect(Service, address) {
  const stub = new Service(address, grpc.credentials.createInsecure())
  return (method, message, metadata = {}) => promisify(stub[method]).call(stub, message, grpc.Metadata.fromHttp2Headers(metadata), { deadline: Date.now() + 10_000 })
}
const issuer = connect(grantor.v1.TokenService, ISSUER_GRPC)
const api = connect(invoices.v1.InvoiceService, API_GRPC)

const grant = { grant_type: 'client_credentials', scope: SCOPE, resource: [RESOURCE] }
const credentials = { client_id: CLIENT_ID, client_secret: CLIENT_SECRET }
const basic = 'Basic ' + Buffer.from([CLIENT_ID, CLIENT_SECRET].map(encodeURIComponent).join(':')).toString('base64')

// The credentials in the message, and in the metadata.
let token
for (const [message, metadata] of [[{ ...grant, ...credentials }, {}], [grant, { authorization: basic }]]) {
  const answer = await issuer('IssueToken', message, metadata)
  assert.equal(answer.token_type, 'Bearer')
  assert.equal(answer.scope, SCOPE)
  token = answer.access_token
  const state = await issuer('IntrospectToken', { token, ...credentials })
  assert.equal(state.active, true)
  assert.equal(state.client_id, CLIENT_ID)
}
await assert.rejects(issuer('IssueToken', { ...grant, ...credentials, client_secret: 'wrong' }), { code: grpc.status.UNAUTHENTICATED })
await assert.rejects(issuer('IssueToken', { ...grant, ...credentials, scope: OTHER_SCOPE }), { code: grpc.status.INVALID_ARGUMENT })

const authorization = `Bearer ${token}`
assert.equal((await api('ListInvoices', {}, { authorization })).invoices.length, 1)
await assert.rejects(api('CreateInvoice', {}, { authorization }), { code: grpc.status.PERMISSION_DENIED })

// Pushed revocation: the API follows the issuer, so the next calls are refused soon.
await issuer('RevokeToken', { token, ...credentials })
assert.equal((await issuer('IntrospectToken', { token, ...credentials })).active, false)
await assert.rejects(async () => {
  for (let i = 0; i < 1000; i++) await api('ListInvoices', {}, { authorization })
}, { code: grpc.status.UNAUTHENTICATED })
assert((await issuer('GetKeySet', {})).keys.length > 0)
