package main

import "github.com/upgradectl/upgradectl/nginx"

// A refusalText says why an edit is refused to somebody who works with commands
// rather than with the package's methods.
type refusalText struct {
	offer                       string // what to do instead, in commands
	reasonZh, effectZh, offerZh string
}

// refusalTexts holds the texts of every reason; TestRefusalTexts holds it
// complete.
func refusalTexts() map[error]refusalText {
	return map[error]refusalText{
		nginx.ErrLastServer: {"add a server first ('nginx add'), or move its traffic ('nginx shift')",
			"它是该 upstream 中最后一台在用的服务器", "nginx 将拒绝此配置：\"no servers are inside upstream\"", "请先增加服务器（nginx add），或迁走其流量（nginx shift）"},
		nginx.ErrOnlyBackupLeft: {"mark it down instead ('nginx disable --mode down'): the backup servers serve then; or add a server first ('nginx add')",
			"该 upstream 将只剩 backup 服务器", "nginx 将拒绝此配置：\"no servers in upstream\"", "请改用 down（nginx disable --mode down），由 backup 服务器承接；或先增加服务器（nginx add）"},
		nginx.ErrOnlyDownLeft: {"add a server first ('nginx add'), or move its traffic ('nginx shift')",
			"该 upstream 将只剩标为 down 的服务器", "nginx -t 会通过，但所有请求得到 502：\"no live upstreams\"", "请先增加服务器（nginx add），或迁走其流量（nginx shift）"},
		nginx.ErrTooLong: {"mark it down instead ('nginx disable --mode down'), or break the line in two first",
			"注释将超过 nginx 能读取的长度（4,096 字节）", "nginx 将拒绝此配置：\"too long parameter\"", "请改用 down（nginx disable --mode down），或先将该行拆为两行"},
		nginx.ErrDirectPass: {"move its traffic ('nginx shift' or 'nginx replace')",
			"pass 指令直接写明该地址，未经 upstream", "去掉该 pass 后 nginx 会改为提供其根目录下的文件", "请迁走其流量（nginx shift 或 nginx replace）"},
		nginx.ErrDirectValue: {"move its traffic ('nginx shift' or 'nginx replace')",
			"某变量的值为该地址，未经 upstream", "去掉该值后变量将为其他值或为空：500，\"invalid URL prefix\"", "请迁走其流量（nginx shift 或 nginx replace）"},
		nginx.ErrMapDefault: {"move its traffic ('nginx shift' or 'nginx replace')",
			"该地址是某变量的默认值", "没有默认值时变量为空：500，\"invalid URL prefix\"", "请迁走其流量（nginx shift 或 nginx replace）"},
		nginx.ErrNotSupportedByMethod: {"mark it down ('nginx disable --mode down'), or give it a small weight ('nginx weight')",
			"该负载均衡方法不支持此参数", "nginx 将拒绝此配置：\"balancing method does not support parameter\"", "请标为 down（nginx disable --mode down），或减小权重（nginx weight）"},
		nginx.ErrNotSupportedByVersion: {"take the parameter out of the line, or update nginx first",
			"此版本的 nginx 不认识该参数", "nginx 将拒绝此配置：\"invalid parameter\"", "请先从该行去掉此参数，或先升级 nginx"},
		nginx.ErrWeight: {"mark it down ('nginx disable --mode down')",
			"nginx 的权重从 1 开始", "nginx 将拒绝此配置：\"invalid parameter\"", "请标为 down（nginx disable --mode down）"},
		nginx.ErrMarkerDamaged: {"put the line right by hand",
			"upgradectl 的标记已损坏", "无法逐字节恢复原内容", "请手工修正该行"},
		nginx.ErrOtherTag: {"restore it under its own tag first ('nginx restore --tag')",
			"它已被另一次操作停用", "那次操作的恢复会在我们不知情时让该服务器重新上线", "请先用其自身的标记恢复（nginx restore --tag）"},
		nginx.ErrExists: {"disable the old server alone ('nginx disable')",
			"该 upstream 已有此服务器", "该服务器将得到双倍份额", "请只停用旧服务器（nginx disable）"},
		nginx.ErrEscaped: {"write the address without backslashes first",
			"该地址以转义形式书写", "就地修改无法保留转义", "请先改写为不含反斜杠的地址"},
		nginx.ErrPortElsewhere: {"give the new host without a port",
			"该地址的端口写在别处", "地址将带有两个端口：每个请求都得到 500", "新主机请不要带端口"},
		nginx.ErrSocket: {"write the new address by hand",
			"该地址是 unix 套接字", "套接字路径之后的内容属于路径，新地址亦将如此", "请手工写入新地址"},
		nginx.ErrIsUpstream: {"use the address instead of the name",
			"新名称与某 upstream 同名", "请求将发往该 upstream 的服务器，或 nginx 拒绝其端口", "请使用地址而非名称"},
		nginx.ErrNoResolver: {"use an address instead of the name",
			"变量中的名称需要 resolver 指令", "nginx -t 会通过，但所有请求得到 502：\"no resolver defined to resolve\"", "请使用地址而非名称"},
	}
}

// refusalLine is one place as an operator reads it.
func (a *app) refusalLine(r nginx.Refusal, text refusalText) string {
	if a.lang != "zh" {
		r.Offer = text.offer
		return r.String()
	}
	where := r.Addr
	if where != "" && r.Upstream != "" {
		where = "upstream " + r.Upstream + " 中的 " + where
	}
	if where != "" {
		where += "："
	}
	detail := ""
	if r.Detail != "" {
		detail = "（" + r.Detail + "）"
	}
	return sprintf("%s:%d:%d: %s%s%s；%s；%s", []any{r.File, r.Line, r.Col, where, text.reasonZh, detail, text.effectZh, text.offerZh})
}
