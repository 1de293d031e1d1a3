// Package traffic is the traffic of the simulated world: balancers and nginx
// programs that carry requests as their settings say, and clients that never
// stop asking and count every answer that was not right.
//
// It knows addresses of the world only. What lies behind them is reached
// through a [DialFunc] that its user gives it.
package traffic
