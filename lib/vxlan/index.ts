/** VXLAN links, and the endpoints on them. */
export { Endpoints, type Endpoint, type EndpointsOptions, type EndpointsReconciliation } from './endpoints.js'
