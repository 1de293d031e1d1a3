// Package nginx reads, searches and edits nginx configurations without losing a
// byte, and puts edits live on a host.
package nginx
