package hostinv

// The reasons of findings.
const (
	reasonUnknown    = "a side could not be read whole, so that nothing can be said about what it does not list"
	reasonGone       = "it is gone"
	reasonNew        = "it was not there before"
	reasonDiffers    = "it is different"
	reasonReboot     = "the host has been booted"
	reasonSameKernel = "the kernel was to change and did not"
	reasonNotMeant   = "it is not the kernel that was meant"
	reasonSmaller    = "there is less of it"
	reasonOlder      = "it is an older version"
	reasonBroken     = "the package is not installed properly"
	reasonReadOnly   = "it can no longer be written to"
	reasonAddress    = "an address is gone"
	reasonDown       = "the interface is no longer up"
	reasonUser       = "it runs as another user"
	reasonStorage    = "containers and images of the other one are not seen"
	reasonStopped    = "it ran and does not run"
	reasonUnhealthy  = "its health check fails"
	reasonFailed     = "it has failed"
	reasonDisabled   = "it no longer starts at boot"
	reasonSetting    = "a configured setting is not in force, or another one"
	reasonProtection = "a protection is off"
	reasonHostKey    = "clients see another host key"
	reasonTime       = "the host's time may differ"
	reasonProgram    = "another program answers on the port"
	reasonMoved      = "it can no longer be reached where it was"
	reasonExposed    = "it can be reached on more addresses"
)

// chinese are the reasons in Chinese. Never written to.
var chinese = map[string]string{
	reasonUnknown:    "有一侧未能完整读取，未列出的内容无法判断",
	reasonGone:       "已消失",
	reasonNew:        "之前没有",
	reasonDiffers:    "与之前不同",
	reasonReboot:     "主机重启过",
	reasonSameKernel: "内核本应变化但没有变化",
	reasonNotMeant:   "不是计划中的内核",
	reasonSmaller:    "比之前少",
	reasonOlder:      "版本变旧",
	reasonBroken:     "软件包没有正确安装",
	reasonReadOnly:   "变为只读",
	reasonAddress:    "有地址丢失",
	reasonDown:       "网卡不再是 up 状态",
	reasonUser:       "运行用户不同",
	reasonStorage:    "原有的容器和镜像不可见",
	reasonStopped:    "之前在运行，现在没有运行",
	reasonUnhealthy:  "健康检查失败",
	reasonFailed:     "启动失败",
	reasonDisabled:   "不再开机启动",
	reasonSetting:    "已配置的参数没有生效或被改动",
	reasonProtection: "防护已关闭",
	reasonHostKey:    "客户端会看到不同的主机密钥",
	reasonTime:       "主机时间可能不同",
	reasonProgram:    "该端口由另一个程序应答",
	reasonMoved:      "在原来的地址上已无法访问",
	reasonExposed:    "可在更多地址上访问",
}
