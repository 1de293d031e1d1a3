package alicloud

// OnMachine points cfg at a metadata service and a machine description of a
// test.
func OnMachine(cfg Config, imds, dmi string) Config {
	cfg.imds, cfg.dmi = imds, dmi
	return cfg
}
