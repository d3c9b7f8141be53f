/**
 * Two-character Chinese words that byte-pair vocabularies hold as one token or as the start of a longer one: common words of
 * everyday, school, office and technical Chinese, written for this estimator, two characters each without separators.
 */
const COMMON_WORDS = [
  '我们你们他们她们它们自己大家别人人们这个那个这些那些这样那样这里那里这种什么怎么怎样如何为什哪些哪个多少几个一个一些一种一样一般一定一直一起一次一下两个三个第一第二之一许多很多更多大量部分全部所有任何',
  '各种每个其他其中其它另外可以可能能够应该应当必须需要不能不会不是不同不要不用不足没有还有还是就是都是也是只有只是只能是否如果因为所以因此由于但是然而而且并且或者以及虽然即使无论除了通过根据按照关于对于',
  '随着为了作为以下以上之间之后之前以后以前之外然后同时同样已经曾经正在将会开始结束继续最后最终首先其次目前现在今天明天昨天今年去年时候时间时代当时小时分钟星期每天过去未来以来非常十分比较特别尤其更加越来',
  '完全主要重要基本具体相关有关不断直接各项整个多种例如包括属于成为具有存在出现发生发现认为表示表明显示说明指出介绍描述反映体现导致引起造成形成产生增加减少提高提升降低加强促进推动推进支持帮助提供进行实现',
  '完成解决处理采用使用利用应用运用选择确定决定分析研究调查讨论计算设计开发建立建设创建制定实施执行组织管理控制保护保证保持确保影响改变改善发展变化增长扩大转移运行运动活动工作学习生活生产消费服务经营销售',
  '购买投资交易支付贷款合同协议规定要求标准条件申请办理审批登记许可证明请问请求回答答案问题题目正确错误下列说法材料内容信息数据文件文章文字文本文化文学语言中文英文英语汉语作者作品作用功能方法方式方面方向',
  '方案措施原因结果效果目的目标任务计划过程阶段情况状态特点特征性质程度水平能力技术科技科学技能知识教育教学学校学生老师教师大学专业课程考试历史社会国家政府政治经济市场企业公司产品行业产业工业农业商业金融',
  '银行资金资本资源价格价值成本收入利润费用金额财务会计税收法律法院法规制度政策权利责任义务行为行政机构部门单位机关人员人民公民群众个人用户客户员工孩子父母女性男性朋友家庭医院医生患者病人治疗症状疾病药物',
  '检查手术健康身体心理情感感觉感受喜欢希望觉得知道告诉了解理解认识考虑注意关注重视建议意见意义思想思维观点理论概念原则规律精神传统现代古代艺术音乐电影游戏体育比赛新闻媒体网络网站互联软件硬件系统电脑手机',
  '电话电子平台程序代码函数参数变量模型算法训练接口测试智能人工机器自动数字数量数学物理化学生物细胞动物植物环境生态自然气候温度空气土壤能源能量电力安全风险质量工程项目设备设施建筑城市农村地区地方地点位置',
  '区域世界国际中国美国日本全国北京上海东西上面下面里面前面后面左右内部外部关系联系合作竞争结构基础机制体系模式类型形式形象特殊普通简单复杂容易困难优势机会挑战成功失败有效高度中心核心综合全面整体统一独立',
  '自由公共公开共同一致稳定快速及时长期明显良好丰富美丽有限最大最高至少超过达到得到获得取得进入出来起来下来看到发布更新修改添加删除输入输出搜索查询查看打开登录注册设置配置下载连接请您您好谢谢感谢比如直到',
  '甚至似乎几乎往往经常通常仍然尽管不仅不过不但否则于是从而其实事情事件事实故事经验经历经过生命人类人生人物力量距离面积长度速度时期年代世纪元素反应溶液实验图片图像视频照片餐厅酒店景点门票附近推荐订单商品',
  '物流快递地址价钱账户客服退款',
].join('')

/** Slots of the hash table below; a power of two, about eight times the number of words so that most probes end at once. */
const SLOTS = 8192

function slotOf(key: number): number {
  return (Math.imul(key, 0x9e37_79b1) >>> 19) & (SLOTS - 1)
}

function tableOf(words: string): Int32Array {
  const table = new Int32Array(SLOTS)
  for (let at = 0; at + 1 < words.length; at += 2) {
    const key = (words.charCodeAt(at) << 16) | words.charCodeAt(at + 1)
    let slot = slotOf(key)
    while (table[slot] !== 0) slot = (slot + 1) & (SLOTS - 1)
    table[slot] = key
  }
  return table
}

const TABLE = tableOf(COMMON_WORDS)

/** Whether two UTF-16 code units form a listed word. Allocates nothing; ends because the table is never full. */
export function isCommonWord(first: number, second: number): boolean {
  const key = (first << 16) | second
  let slot = slotOf(key)
  while (TABLE[slot] !== 0) {
    if (TABLE[slot] === key) return true
    slot = (slot + 1) & (SLOTS - 1)
  }
  return false
}
