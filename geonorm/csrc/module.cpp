// The Python module geonorm._C: importing it defines the operators of namespace geonorm_cpp.
#include <Python.h>
#include <torch/library.h>

#include "axis_norm.h"
#include "segment_norm.h"

TORCH_LIBRARY(geonorm_cpp, m) {
  m.def(
      "segment_norm(Tensor rows, Tensor index, SymInt num_instances, Tensor? row_weights, "
      "Tensor? weight, Tensor? bias, int groups, float eps, str activation, float negative_slope) "
      "-> (Tensor out, Tensor shift, Tensor mean, Tensor rstd)");
  m.def(
      "segment_norm_backward(Tensor grad, Tensor rows, Tensor index, Tensor shift, Tensor mean, "
      "Tensor rstd, Tensor? row_weights, Tensor? weight, Tensor? bias, int groups, "
      "str activation, float negative_slope) "
      "-> (Tensor grad_rows, Tensor grad_weight, Tensor grad_bias)");
  m.def(
      "segment_stats(Tensor rows, Tensor index, SymInt num_instances, Tensor? row_weights, "
      "int groups) -> (Tensor mean, Tensor var)");
  m.def(
      "axis_norm(Tensor x, int[] axes, Tensor? weight, Tensor? bias, float eps, str activation, "
      "float negative_slope) -> (Tensor out, Tensor shift, Tensor mean, Tensor rstd)");
  m.def(
      "axis_norm_backward(Tensor grad, Tensor x, Tensor shift, Tensor mean, Tensor rstd, "
      "int[] axes, Tensor? weight, Tensor? bias, str activation, float negative_slope) "
      "-> (Tensor grad_x, Tensor grad_weight, Tensor grad_bias)");
}

TORCH_LIBRARY_IMPL(geonorm_cpp, CPU, m) {
  m.impl("segment_norm", geonorm::segment_norm);
  m.impl("segment_norm_backward", geonorm::segment_norm_backward);
  m.impl("segment_stats", geonorm::segment_stats);
  m.impl("axis_norm", geonorm::axis_norm);
  m.impl("axis_norm_backward", geonorm::axis_norm_backward);
}

PyMODINIT_FUNC PyInit__C() {
  static PyModuleDef definition = {PyModuleDef_HEAD_INIT, "geonorm._C", nullptr, -1, nullptr};
  return PyModule_Create(&definition);
}
